"""Options of what comes before a handler: TLS and the PROXY protocol."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import typer

TLS: Final = "TLS, for tls:// addresses"
PROXY: Final = "Behind a proxy"
TlsVersion: TypeAlias = Literal["1.0", "1.1", "1.2", "1.3"]

Cert: TypeAlias = Annotated[
    str | None,
    typer.Option("--cert", metavar="FILE", help="Certificate and its chain, in PEM form.", rich_help_panel=TLS),
]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option("--key", metavar="FILE", help="Its private key, where --cert does not hold it.", rich_help_panel=TLS),
]
KeyPasswordFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--key-password-file",
        metavar="FILE",
        help="Its first line is the password of an encrypted private key; or set ESOCKD_KEY_PASSWORD.",
        rich_help_panel=TLS,
    ),
]
ClientCa: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--client-ca",
        metavar="FILE",
        help="Require a client certificate of one of these authorities.",
        rich_help_panel=TLS,
    ),
]
Alpn: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--alpn", metavar="PROTO", help="Application protocol, such as mqtt; the preferred first.", rich_help_panel=TLS
    ),
]
TlsMin: TypeAlias = Annotated[
    TlsVersion | None,
    typer.Option(
        "--tls-min", help="Oldest version; 1.0 and 1.1 are insecure.", rich_help_panel=TLS, show_default="1.2"
    ),
]
HandshakeTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--handshake-timeout", metavar="TIME", help="For the whole handshake.", rich_help_panel=TLS, show_default="15s"
    ),
]
MaxHandshaking: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-handshaking",
        metavar="N",
        help="Connections at once in a handshake, or waiting for a PROXY header.",
        rich_help_panel=TLS,
        show_default="a quarter of --max-connections",
    ),
]
ProxyProtocol: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--proxy-protocol",
        help="Require a PROXY header, version 1 or 2, and take the client's address from it.",
        rich_help_panel=PROXY,
    ),
]
ProxyTrust: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy-trust",
        metavar="CIDR",
        help="Refuse whoever is not one of these proxies; without it every peer is believed.",
        rich_help_panel=PROXY,
    ),
]
ProxyTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--proxy-timeout", metavar="TIME", help="For the whole header.", rich_help_panel=PROXY, show_default="5s"
    ),
]
