"""What comes before a handler, TLS and the PROXY protocol, from the options of a command line."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esockd_cli._errors import UsageError
from esockd_cli._values import parse_count, parse_duration, parse_rule
from esockd_core import InvalidOption, TlsOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cli._upgrade_parameters import TlsVersion
    from esockd_core import Address

logger = logging.getLogger("esockd_cli")

PASSWORD_VARIABLE: Final = "ESOCKD_KEY_PASSWORD"  # noqa: S105 (its name, no password)
MAX_PASSWORD_BYTES: Final = 1023  # what ssl.SSLContext.load_cert_chain takes


def read_tls_options(
    addresses: Sequence[Address],
    *,
    cert: str | None,
    key: str | None,
    key_password_file: str | None,
    client_ca: str | None,
    alpn: Sequence[str],
    tls_min: TlsVersion | None,
) -> TlsOptions | None:
    """Read the options of TLS, for the addresses that are `tls://`; the environment may have the key's password.

    Returns:
        How to speak TLS, None when no address does.

    Raises:
        UsageError: An address needs them and they are not given, or the other way round; or a file is missing,
            unreadable or does not match.
    """
    encrypted = next((address for address in addresses if address.transport == "tls"), None)
    if encrypted is None:
        given = {
            "--cert": cert,
            "--key": key,
            "--key-password-file": key_password_file,
            "--client-ca": client_ca,
            "--alpn": alpn,
            "--tls-min": tls_min,
        }
        for option, value in given.items():
            if value:
                raise UsageError(f"{option} is for tls://HOST:PORT, and no address is one.", hint=_meant(addresses))
        return None
    if cert is None:
        raise UsageError(f"{encrypted} needs a certificate.", hint="Give --cert FILE, and --key FILE for its key.")
    password = _read_password(key_password_file)
    try:
        return TlsOptions(
            certfile=cert,
            keyfile=key,
            password=password,
            client_ca=client_ca,
            alpn=tuple(alpn),
            minimum_version=tls_min or "1.2",
        )
    except InvalidOption as error:
        lacks_password = password is None and "is encrypted" in str(error)
        hint = f"Give --key-password-file FILE, or set {PASSWORD_VARIABLE}." if lacks_password else None
        raise UsageError(f"{str(error).rstrip('.')}.", code="bad_tls", hint=hint) from error


def log_bad_server_names() -> None:
    """Log, for who asks for debug logs only, that a client asked for a server name that is no ASCII.

    Python's `ssl` has no other way to tell than `sys.unraisablehook`, which writes to stderr whatever clients send.
    """

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes):
            logger.debug("a client asked for the server name %r", unraisable.object)
        else:
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = tell


def read_upgrade_options(
    *,
    has_tls: bool,
    proxy_protocol: bool,
    proxy_trust: Sequence[str],
    proxy_timeout: str | None,
    handshake_timeout: str | None,
    max_handshaking: str | None,
) -> dict[str, Any]:
    """Read the `--proxy-` options and the bounds of what comes before a handler.

    Returns:
        The fields of `esockd_core.ListenerOptions` that they set; those not given are left out.

    Raises:
        UsageError: A value is none, or the option does nothing without another one.
    """
    if not proxy_protocol:
        for option, given in (("--proxy-trust", proxy_trust), ("--proxy-timeout", proxy_timeout)):
            if given:
                raise UsageError(f"{option} does nothing without --proxy-protocol.", hint="Give --proxy-protocol too.")
    if handshake_timeout is not None and not has_tls:
        raise UsageError("--handshake-timeout is for tls://HOST:PORT, and no address is one.")
    if max_handshaking is not None and not (has_tls or proxy_protocol):
        raise UsageError("--max-handshaking does nothing without a tls:// address or --proxy-protocol.")
    for network in proxy_trust:
        parse_rule("allow", network)
    options: dict[str, Any] = {"proxy_protocol": proxy_protocol, "trusted": tuple(proxy_trust) or None}
    if proxy_timeout is not None:
        options["proxy_protocol_timeout"] = parse_duration("--proxy-timeout", proxy_timeout)
    if handshake_timeout is not None:
        options["handshake_timeout"] = parse_duration("--handshake-timeout", handshake_timeout)
    if max_handshaking is not None:
        options["max_handshaking"] = parse_count("--max-handshaking", max_handshaking)
    return options


def _read_password(file: str | None) -> bytes | None:
    """The first line of a file, otherwise what the environment has; never an argument, which everybody could see."""
    if file is None:
        return os.environb.get(PASSWORD_VARIABLE.encode()) or None
    try:
        with Path(file).open("rb") as lines:  # a pipe will do, and `<(command)` of a shell
            password = lines.readline(MAX_PASSWORD_BYTES + 2).rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"--key-password-file {file}: {error.strerror}.", code="bad_tls") from error
    if not password:
        raise UsageError(f"--key-password-file {file}: its first line is empty.", code="bad_tls")
    return password


def _meant(addresses: Sequence[Address]) -> str | None:
    stream = next((address for address in addresses if not address.is_datagram), None)
    return None if stream is None else f'Did you mean "{stream.encrypted()}"?'
