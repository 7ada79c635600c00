"""Certificates of a listener, and which of them a client gets by the server name that it asks for."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast

from esockd_core._errors import InvalidOption
from esockd_core._options.files import check_file
from esockd_core._options.table import OPTIONS

T = TypeVar("T")
# As they travel (RFC 6066 section 3): international names in their ASCII form, and no dot at the end.
SERVER_NAME: Final = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.IGNORECASE)
VISIBLE: Final = re.compile("[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsCertificate:
    """A certificate and its private key, in PEM files.

    Attributes:
        certfile: The certificate, followed by its chain without the root.
        keyfile: The private key; None if `certfile` holds it.
        password: The password of an encrypted private key.
    """

    certfile: str | Path
    keyfile: str | Path | None = None
    password: str | bytes | None = field(default=None, repr=False)

    def load_into(self, context: ssl.SSLContext, option: str) -> None:
        """Read the files.

        Args:
            context: The context that will show the certificate.
            option: The option that holds this certificate, such as "tls".

        Raises:
            InvalidOption: If a file is missing or not PEM, the key does not match, or it is encrypted and the password
                is missing or wrong.
        """
        password = self._ask_nobody if self.password is None else self.password
        for name in ("certfile", "keyfile"):
            OPTIONS[f"tls.{name}"].kind.check(f"{option}.{name}", getattr(self, name))
        try:
            context.load_cert_chain(self.certfile, self.keyfile, password)
        except _IsEncrypted as error:
            reason = f"the private key in {self.keyfile or self.certfile} is encrypted"
            raise InvalidOption(reason, option=f"{option}.password", value=None, hint="Give its password.") from error
        except ssl.SSLError as error:
            raise self._explain(error, option) from error
        except (OSError, TypeError, ValueError) as error:
            raise InvalidOption(str(error), option=f"{option}.certfile", value=str(self.certfile)) from error

    def _ask_nobody(self) -> NoReturn:
        raise _IsEncrypted  # or OpenSSL would ask on the terminal

    def _explain(self, error: ssl.SSLError, option: str) -> InvalidOption:
        """Explain what OpenSSL does not: what is wrong with which file."""
        certificate, key = str(self.certfile), str(self.keyfile or self.certfile)
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"the private key does not belong to the certificate in {certificate}"
            return InvalidOption(reason, option=f"{option}.keyfile", value=key)
        if b"-----BEGIN CERTIFICATE-----" not in Path(certificate).read_bytes():
            return InvalidOption("it holds no certificate in PEM form", option=f"{option}.certfile", value=certificate)
        if b"PRIVATE KEY-----" not in Path(key).read_bytes():
            if self.keyfile is None:
                reason, hint = f"{certificate} holds the certificate only", "Give the file of the private key as well."
                return InvalidOption(reason, option=f"{option}.keyfile", value=None, hint=hint)
            return InvalidOption("it holds no private key in PEM form", option=f"{option}.keyfile", value=key)
        if self.password is not None:
            return InvalidOption(f"it does not open the private key in {key}", option=f"{option}.password")
        return InvalidOption(
            f"it cannot be read ({error.reason or error})", option=f"{option}.certfile", value=certificate
        )


class _IsEncrypted(Exception):  # noqa: N818 (an answer)
    """OpenSSL asked for a password, but none was given."""


def read_sni(option: str, given: Any) -> Any:
    """Read certificates by server name, which may be given as mappings, as they are in a file or over a socket."""
    if not isinstance(given, Mapping):
        return given  # which `check_sni` refuses
    return {name: _read_certificate(f'{option}["{name}"]', own) for name, own in given.items()}


def _read_certificate(option: str, given: Any) -> TlsCertificate:
    if not isinstance(given, Mapping):
        return cast("TlsCertificate", given)
    if unknown := sorted(given.keys() - {each.name for each in fields(TlsCertificate)}):
        raise InvalidOption(f'it does not have "{unknown[0]}"', option=option)
    if "certfile" not in given:
        raise InvalidOption("it needs certfile", option=option)
    return TlsCertificate(**cast("Mapping[str, Any]", given))


def check_sni(option: str, sni: object) -> None:
    """Check certificates by server name.

    Raises:
        InvalidOption: If a name or a certificate is not one.
    """
    if not isinstance(sni, Mapping):
        raise InvalidOption(f"it takes {OPTIONS['tls.sni'].kind.takes}", option=option, value=sni)
    for server, certificate in sni.items():
        if not isinstance(server, str) or SERVER_NAME.fullmatch(server) is None:
            reason = (
                f'{server!r} is not a server name such as "mail.example.org" or "*.example.org"; '
                'international names are written as clients send them, "xn--bcher-kva.example"'
            )
            raise InvalidOption(reason, option=option)
        if not isinstance(certificate, TlsCertificate):
            raise InvalidOption("it takes a TlsCertificate", option=f'{option}["{server}"]', value=certificate)


def is_visible(name: str) -> bool:
    """Whether a server name is printable ASCII; no host has any other, and it would spoil logs."""
    return VISIBLE.fullmatch(name) is not None


def find_by_name(by_name: Mapping[str, T], name: str) -> T | None:
    """Find what belongs to a server name. In the lower-case keys, "*." at the beginning stands for one label."""
    name = name.lower()
    return by_name.get(name) or by_name.get("*." + name.partition(".")[2])


def load_authorities(context: ssl.SSLContext, option: str, file: str | Path) -> None:
    """Trust the authorities in a file.

    Raises:
        InvalidOption: If it cannot be read, or holds none.
    """
    check_file(option, file)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        raise InvalidOption("it holds no certificate in PEM form", option=option, value=str(file)) from error
