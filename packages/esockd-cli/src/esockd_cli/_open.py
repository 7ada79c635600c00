"""`esockd open`: run listeners with one handler, now and in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from esockd_cli._flags import Given, read_flags, read_group_options, takes_flags
from esockd_cli._output import Output
from esockd_cli._parameters import ACCESS_RULES, OUTPUT_PANEL, AsJson, NoColor, OrderedRulesCommand, Quiet, Verbose
from esockd_core import Topic

PROGRAM = "Program"


class OpenCommand(OrderedRulesCommand):
    """Its topics are those of the options."""

    example = "echo 5000"
    topics = (PROGRAM, *Topic)


@takes_flags()
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
            "each after tls://, udp:// or dtls:// if wanted. Port 0 takes a free one.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            "-n",
            metavar="NAME",
            help="Name of the listener; the handler's when not given.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    app_dir: Annotated[
        Path,
        typer.Option(
            "--app-dir",
            metavar="DIR",
            help="Folder to import package.module from.",
            rich_help_panel=PROGRAM,
        ),
    ] = Path(),
    loop: Annotated[
        Literal["auto", "asyncio", "uvloop", "trio"],
        typer.Option(
            "--loop",
            metavar="auto|asyncio|uvloop|trio",
            help="Event loop; auto is uvloop where it is installed.",
            rich_help_panel=PROGRAM,
        ),
    ] = "auto",
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            metavar="N|auto",
            help="How many worker processes serve; one that dies or hangs is replaced. auto is one for each processor. "
            "Limits hold over all of them.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            "-i",
            metavar="NAME",
            help="Name of this process for the other commands; the listener's when not given.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    no_control: Annotated[
        bool,
        typer.Option(
            "--no-control",
            help="Open no control socket: no other command can inspect or change the listeners.",
            rich_help_panel=PROGRAM,
        ),
    ] = False,
    read_only: Annotated[
        str | None,
        typer.Option(
            "--read-only",
            metavar="MODE",
            help="Open a second control socket with these permissions, such as 660, for looking only.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="ADDRESS",
            help="Serve /metrics for Prometheus, /healthz and /readyz there; 9100 is for this machine only.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="NAME",
            help="User that serves, once root has opened the ports.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="NAME",
            help="Group of that user; the user's own when not given.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Show the live dashboard in this terminal; q leaves it, and the listeners go on.",
            rich_help_panel=PROGRAM,
        ),
    ] = False,
    allow: Annotated[  # noqa: ARG001 (their order is in the context)
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CIDR",
            help="Let in an address, a CIDR or all. --allow and --deny are one list in the order typed: the first "
            "match decides. Whoever matches none is let in, but kept out if there is no --deny.",
            rich_help_panel=Topic.ACCESS.value,
        ),
    ] = None,
    deny: Annotated[  # noqa: ARG001
        list[str] | None,
        typer.Option(
            "--deny", metavar="CIDR", help="Keep out an address, a CIDR or all.", rich_help_panel=Topic.ACCESS.value
        ),
    ] = None,
    key_password_file: Annotated[
        str | None,
        typer.Option(
            "--key-password-file",
            metavar="FILE",
            help="File whose first line is the password of an encrypted private key; or set ESOCKD_KEY_PASSWORD.",
            rich_help_panel=Topic.TLS.value,
        ),
    ] = None,
    tcp_option: Annotated[
        list[str] | None,
        typer.Option(
            "--tcp-option",
            metavar="KEY=VALUE",
            help="Any other option of TCP sockets, such as nodelay=off, keepalive_idle_timeout=1m, user_timeout=20s.",
            rich_help_panel=Topic.SOCKETS.value,
        ),
    ] = None,
    udp_option: Annotated[
        list[str] | None,
        typer.Option(
            "--udp-option",
            metavar="KEY=VALUE",
            help="Any other option of datagrams, such as idle_timeout=5m, queue_datagrams=256, ttl=1.",
            rich_help_panel=Topic.DATAGRAMS.value,
        ),
    ] = None,
    log_format: Annotated[
        Literal["auto", "json", "logfmt"],
        typer.Option(
            "--log-format",
            metavar="auto|json|logfmt",
            help="What is written to stderr: text, or one JSON object or one line of key=value for each fact.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = "auto",
    log_level: Annotated[
        Literal["error", "warning", "info", "debug"] | None,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            help="Log error, warning, info (who is refused, and why) or debug, and worse; warning when not given.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    log_file: Annotated[
        str | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            help="Append what goes to stderr to a file, which SIGUSR1 opens again.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    log_to: Annotated[
        Literal["stderr", "syslog", "journald"],
        typer.Option(
            "--log-to",
            metavar="stderr|syslog|journald",
            help="Where logs go; journald gets what a line is about as fields.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = "stderr",
    as_json: AsJson = False,
    no_color: NoColor = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **flags: Given,
) -> int:
    """Run a listener on each address until SIGINT or SIGTERM.

    A stop lets connections come to their end for --shutdown-timeout; a second signal cancels them, a third leaves at
    once. Durations are written 2s, 500ms, 1.5m or none.
    """
    # What the work needs is imported now and not above: --help does without.
    from esockd_cli._control import read_control  # noqa: PLC0415
    from esockd_cli._handlers import find_handler, name_of_handler, require_order  # noqa: PLC0415
    from esockd_cli._host import read_host, set_up_process  # noqa: PLC0415
    from esockd_cli._listeners import (  # noqa: PLC0415
        read_addresses,
        read_forwarder,
        read_options,
        refuse_amplification,
    )
    from esockd_cli._log_file import read_log_file  # noqa: PLC0415
    from esockd_cli._opening import Opening  # noqa: PLC0415
    from esockd_cli._run import run  # noqa: PLC0415
    from esockd_cli._serving_as import serve_as  # noqa: PLC0415
    from esockd_cli._values import parse_rules  # noqa: PLC0415

    output = Output(
        as_json=as_json,
        log_form=log_format,
        log_to=log_to,
        log_file=read_log_file(log_file, log_to),
        log_level=log_level,
        no_color=no_color,
        quiet=quiet,
        verbose=verbose,
    )
    host = read_host(metrics=metrics, user=user, group=group)
    set_up_process(ctx, output, host, has_dashboard=dashboard)
    require_order(handler, listen)
    addresses = read_addresses(listen)
    values = read_flags(flags)
    read_group_options("tcp", tcp_option or [], values)
    read_group_options("udp", udp_option or [], values)
    rules = parse_rules(ctx.meta[ACCESS_RULES])
    options = read_options(addresses, values, rules=rules, key_password_file=key_password_file)
    refuse_amplification(addresses, options, handler)
    if workers is not None:
        from esockd_cli._run_workers import run_workers  # noqa: PLC0415
        from esockd_cli._worker_count import read_workers  # noqa: PLC0415
        from esockd_cli._worker_listener import named_listener  # noqa: PLC0415

        count = read_workers(workers)
        name = name or name_of_handler(handler)
        control = read_control(instance, name, read_only, is_wanted=not no_control, has_dashboard=dashboard)
        listeners = [
            named_listener(name, address, each, handler, app_dir, called="--app-dir", values=values)
            for address, each in zip(addresses, options, strict=True)
        ]
        return run_workers(listeners, count, loop, output, control, host=host)
    forwarder = read_forwarder(handler, values)
    serve_as(host, zip(addresses, options, strict=True))
    handler_name, found = find_handler(handler, app_dir) if forwarder is None else ("forward", forwarder)
    openings = [
        Opening(name=name or handler_name, address=address, handler=found, options=each, handler_text=handler)
        for address, each in zip(addresses, options, strict=True)
    ]
    control = read_control(instance, openings[0].name, read_only, is_wanted=not no_control, has_dashboard=dashboard)
    return run(openings, loop, output, control, host=host)
