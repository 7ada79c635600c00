"""The forwarder that a command line names: `forward:HOST:PORT` and what belongs to it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import typer

from esockd_cli._errors import UsageError

FORWARD: Final = "forward:HOST:PORT"
HINT: Final = 'Write "forward:HOST:PORT", "forward:tls://HOST:PORT" or "forward:unix:/path"; several with commas.'

SendProxy: TypeAlias = Annotated[
    Literal["v1", "v2"] | None,
    typer.Option(
        "--send-proxy", help="Tell the upstream who the client is, by a PROXY header.", rich_help_panel=FORWARD
    ),
]
ConnectTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--connect-timeout",
        metavar="TIME",
        help="To connect with an upstream, its TLS handshake included.",
        rich_help_panel=FORWARD,
        show_default="5s",
    ),
]
HalfClosedTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--half-closed-timeout",
        metavar="TIME",
        help="Close after so long without a byte once one side has finished.",
        rich_help_panel=FORWARD,
        show_default="1m",
    ),
]
UpstreamCa: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--upstream-ca",
        metavar="FILE",
        help="Authorities that may have signed the certificates of tls:// upstreams.",
        rich_help_panel=FORWARD,
        show_default="the system's",
    ),
]


def read_forwarder(
    handler: str,
    *,
    send_proxy: Literal["v1", "v2"] | None,
    connect_timeout: str | None,
    half_closed_timeout: str | None,
    upstream_ca: str | None,
) -> Any:
    """Read `forward:UPSTREAM,...` and the options for it.

    Returns:
        An `esockd_core.handlers.ForwardHandler`; None when the handler is another one.

    Raises:
        UsageError: An upstream is none, a value is out of bounds, or an option is for forwarders and this is none.
    """
    # Imported now and not above, as in `open_command`.
    from esockd_cli._values import parse_duration  # noqa: PLC0415
    from esockd_core import InvalidOption, UpstreamTlsOptions  # noqa: PLC0415
    from esockd_core.handlers import ForwardHandler  # noqa: PLC0415

    kind, _, upstreams = handler.partition(":")
    given = {
        "--send-proxy": send_proxy,
        "--connect-timeout": connect_timeout,
        "--half-closed-timeout": half_closed_timeout,
        "--upstream-ca": upstream_ca,
    }
    if kind != "forward":
        for option, value in given.items():
            if value is not None:
                raise UsageError(f'{option} is for the handler {FORWARD}, and "{handler}" is another one.')
        return None
    if not upstreams:
        raise UsageError("forward: the upstream is missing.", code="bad_upstream", hint=HINT)
    options: dict[str, Any] = {"send_proxy": send_proxy}
    if connect_timeout is not None:
        options["connect_timeout"] = parse_duration("--connect-timeout", connect_timeout)
    if half_closed_timeout is not None:
        options["half_closed_timeout"] = parse_duration("--half-closed-timeout", half_closed_timeout)
    try:
        if upstream_ca is not None:
            options["tls"] = UpstreamTlsOptions(ca_file=upstream_ca)
        return ForwardHandler(upstreams.split(","), **options)
    except InvalidOption as error:
        message = str(error).partition(" Use ")[0]
        message += "" if message.endswith((".", "?")) else "."
        if message.startswith("bad upstream"):
            raise UsageError(message, code="bad_upstream", hint=HINT) from error
        raise UsageError(message, code="bad_option") from error
