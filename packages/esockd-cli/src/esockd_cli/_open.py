"""`esockd open`: run listeners with one handler, now and in the foreground."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from esockd_cli import _forward as forward
from esockd_cli import _upgrade_parameters as upgrade
from esockd_cli._errors import UsageError
from esockd_cli._output import Output
from esockd_cli._parameters import ACCESS_RULES, AsJson, NoColor, Quiet, Verbose

LIMITS = "How many may come in"
ACCESS = "Who may come in"
SOCKET = "Sockets"
TIMES = "Times"
PROGRAM = "Program"


def open_command(
    ctx: typer.Context,
    *,
    handler: Annotated[
        str,
        typer.Argument(
            metavar="HANDLER",
            help="echo, discard, daytime, chargen, static:TEXT, static:@FILE, forward:HOST:PORT, or "
            "package.module:attribute: a coroutine function, a CallbackHandler or a class of them.",
        ),
    ],
    listen: Annotated[
        list[str],
        typer.Argument(
            metavar="LISTEN...",
            help="5000 (loopback), *:5000 (everywhere), host:5000, [::1]:5000, unix:/path, systemd:NAME or fd:N, "
            "each after tls:// if wanted. Port 0 takes a free one.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="Name of the listener; by default the handler's.", rich_help_panel=PROGRAM),
    ] = None,
    app_dir: Annotated[
        Path, typer.Option("--app-dir", help="Folder to import package.module from.", rich_help_panel=PROGRAM)
    ] = Path(),
    loop: Annotated[
        Literal["auto", "asyncio", "uvloop", "trio"],
        typer.Option("--loop", help="Event loop; auto is uvloop where it is installed.", rich_help_panel=PROGRAM),
    ] = "auto",
    allow: Annotated[  # noqa: ARG001 (their order is in the context)
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CIDR",
            help="Let in an address, a CIDR or all. --allow and --deny are one list in the order typed; the first "
            "match decides, and no match lets in, or keeps out if there is no --deny.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    deny: Annotated[  # noqa: ARG001
        list[str] | None,
        typer.Option("--deny", metavar="CIDR", help="Keep out, likewise.", rich_help_panel=ACCESS),
    ] = None,
    refuse_with: Annotated[
        str,
        typer.Option(
            "--refuse-with",
            help="How a refused client is told: fin, rst, static:TEXT or static:@FILE.",
            rich_help_panel=ACCESS,
        ),
    ] = "fin",
    max_connections: Annotated[
        str, typer.Option("--max-connections", "-c", metavar="N", help="Connections at once.", rich_help_panel=LIMITS)
    ] = "1024",
    max_conn_rate: Annotated[
        str,
        typer.Option(
            "--max-conn-rate",
            "-r",
            metavar="RATE",
            help='New connections in a time: 100/s, 6000/min, "100/s burst 500".',
            rich_help_panel=LIMITS,
        ),
    ] = "none",
    max_connections_per_source: Annotated[
        str,
        typer.Option(
            "--max-connections-per-source",
            metavar="N",
            help="Connections at once of one IPv4 address or IPv6 /64.",
            rich_help_panel=LIMITS,
        ),
    ] = "none",
    max_conn_rate_per_source: Annotated[
        str,
        typer.Option(
            "--max-conn-rate-per-source", metavar="RATE", help="New connections of one source.", rich_help_panel=LIMITS
        ),
    ] = "none",
    when_full: Annotated[
        Literal["close", "backlog"],
        typer.Option(
            "--when-full", help="At --max-connections: refuse, or leave in the backlog.", rich_help_panel=LIMITS
        ),
    ] = "close",
    when_limited: Annotated[
        Literal["close", "backlog"],
        typer.Option("--when-limited", help="At --max-conn-rate: likewise.", rich_help_panel=LIMITS),
    ] = "close",
    idle_timeout: Annotated[
        str,
        typer.Option(
            "--idle-timeout", metavar="TIME", help="Close after so long without a byte.", rich_help_panel=TIMES
        ),
    ] = "none",
    send_timeout: Annotated[
        str,
        typer.Option(
            "--send-timeout", metavar="TIME", help="Close a peer that takes no byte for so long.", rich_help_panel=TIMES
        ),
    ] = "30s",
    shutdown_timeout: Annotated[
        str,
        typer.Option(
            "--shutdown-timeout", metavar="TIME", help="What handlers have to end at a stop.", rich_help_panel=TIMES
        ),
    ] = "5s",
    acceptors: Annotated[
        int, typer.Option("--acceptors", metavar="N", help="Acceptors of each socket.", rich_help_panel=SOCKET)
    ] = 1,
    backlog: Annotated[
        int | None,
        typer.Option(
            "--backlog",
            metavar="N",
            help="Clients that may wait for accept.",
            rich_help_panel=SOCKET,
            show_default="1024",
        ),
    ] = None,
    tune_buffer: Annotated[
        bool,
        typer.Option("--tune-buffer", help="Read as much at a time as the kernel holds.", rich_help_panel=SOCKET),
    ] = False,
    tcp_option: Annotated[
        list[str] | None,
        typer.Option(
            "--tcp-option",
            metavar="KEY=VALUE",
            help="Any other option of the sockets, such as keepalive=on, keepalive_idle_s=60, nodelay=off.",
            rich_help_panel=SOCKET,
        ),
    ] = None,
    unix_mode: Annotated[
        str | None,
        typer.Option(
            "--unix-mode",
            metavar="MODE",
            help="Permissions of a Unix socket.",
            rich_help_panel=SOCKET,
            show_default="660",
        ),
    ] = None,
    unix_owner: Annotated[
        str | None,
        typer.Option("--unix-owner", metavar="USER", help="Owner of a Unix socket.", rich_help_panel=SOCKET),
    ] = None,
    unix_group: Annotated[
        str | None,
        typer.Option("--unix-group", metavar="GROUP", help="Group of a Unix socket.", rich_help_panel=SOCKET),
    ] = None,
    cert: upgrade.Cert = None,
    key: upgrade.Key = None,
    key_password_file: upgrade.KeyPasswordFile = None,
    client_ca: upgrade.ClientCa = None,
    alpn: upgrade.Alpn = None,
    tls_min: upgrade.TlsMin = None,
    handshake_timeout: upgrade.HandshakeTimeout = None,
    max_handshaking: upgrade.MaxHandshaking = None,
    proxy_protocol: upgrade.ProxyProtocol = False,
    proxy_trust: upgrade.ProxyTrust = None,
    proxy_timeout: upgrade.ProxyTimeout = None,
    send_proxy: forward.SendProxy = None,
    connect_timeout: forward.ConnectTimeout = None,
    half_closed_timeout: forward.HalfClosedTimeout = None,
    upstream_ca: forward.UpstreamCa = None,
    log_format: Annotated[
        Literal["auto", "json"],
        typer.Option("--log-format", help="Logs for people, or as JSON lines.", rich_help_panel="Output"),
    ] = "auto",
    as_json: AsJson = False,
    no_color: NoColor = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Run a listener on each address until SIGINT or SIGTERM.

    A stop lets connections come to their end for --shutdown-timeout; a second signal cancels them, a third leaves at
    once. Durations are written 2s, 500ms, 1.5m or none.
    """
    # What the work needs is imported now and not above: --help and --version do without.
    from esockd_cli._handlers import find_handler  # noqa: PLC0415
    from esockd_cli._logs import set_up_logs  # noqa: PLC0415
    from esockd_cli._run import Opening, run  # noqa: PLC0415
    from esockd_cli._socket_options import read_tcp_options, read_unix_options  # noqa: PLC0415
    from esockd_cli._upgrades import log_bad_server_names, read_tls_options, read_upgrade_options  # noqa: PLC0415
    from esockd_cli._values import parse_count, parse_duration, parse_rate, parse_refusal, parse_rules  # noqa: PLC0415
    from esockd_core import (  # noqa: PLC0415
        InvalidAddress,
        InvalidOption,
        ListenerOptions,
        UnixOptions,
        parse_address,
        raise_open_file_limit,
    )

    output = Output(as_json=as_json, no_color=no_color, quiet=quiet, verbose=verbose)
    set_up_logs(output, log_format)
    raise_open_file_limit()
    try:
        addresses = [parse_address(text) for text in listen]
        tls = read_tls_options(
            addresses,
            cert=cert,
            key=key,
            key_password_file=key_password_file,
            client_ca=client_ca,
            alpn=alpn or (),
            tls_min=tls_min,
        )
        options = ListenerOptions(
            acceptors=acceptors,
            max_connections=parse_count("--max-connections", max_connections),
            max_connections_per_source=parse_count("--max-connections-per-source", max_connections_per_source),
            max_conn_rate=parse_rate("--max-conn-rate", max_conn_rate),
            max_conn_rate_per_source=parse_rate("--max-conn-rate-per-source", max_conn_rate_per_source),
            access_rules=parse_rules(ctx.meta[ACCESS_RULES]),
            when_full=when_full,
            when_limited=when_limited,
            refuse_with=parse_refusal("--refuse-with", refuse_with),
            idle_timeout=parse_duration("--idle-timeout", idle_timeout),
            send_timeout=parse_duration("--send-timeout", send_timeout),
            shutdown_timeout=parse_duration("--shutdown-timeout", shutdown_timeout),
            tcp=read_tcp_options(tcp_option or [], backlog=backlog, tune_buffer=tune_buffer),
            unix=read_unix_options(unix_mode, unix_owner, unix_group),
            tls=tls,
            **read_upgrade_options(
                has_tls=tls is not None,
                proxy_protocol=proxy_protocol,
                proxy_trust=proxy_trust or (),
                proxy_timeout=proxy_timeout,
                handshake_timeout=handshake_timeout,
                max_handshaking=max_handshaking,
            ),
        )
    except (InvalidAddress, InvalidOption) as error:
        raise UsageError(
            str(error), code="bad_address" if isinstance(error, InvalidAddress) else "bad_option"
        ) from error
    if options.unix != UnixOptions() and not any(address.kind == "unix" for address in addresses):
        raise UsageError("--unix-mode, --unix-owner and --unix-group are for unix:/path, and no address is one.")
    if tls is not None:
        log_bad_server_names()
    forwarder = forward.read_forwarder(
        handler,
        send_proxy=send_proxy,
        connect_timeout=connect_timeout,
        half_closed_timeout=half_closed_timeout,
        upstream_ca=upstream_ca,
    )
    handler_name, found = find_handler(handler, app_dir) if forwarder is None else ("forward", forwarder)
    openings = [
        Opening(
            name=name or handler_name,
            address=address,
            handler=found,
            options=replace(
                options,
                unix=options.unix if address.kind == "unix" else UnixOptions(),
                tls=tls if address.transport == "tls" else None,
            ),
        )
        for address in addresses
    ]
    return run(openings, loop, output)
