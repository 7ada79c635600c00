"""TLS options of a listener. They are validated when built, certificates and keys included."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from esockd_core._checks import kept
from esockd_core._errors import InvalidOption
from esockd_core._options.certificate import (
    TlsCertificate,
    check_sni,
    find_by_name,
    is_visible,
    load_authorities,
    read_sni,
)
from esockd_core._options.table import check_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TlsVersion: TypeAlias = Literal["1.0", "1.1", "1.2", "1.3"]
VerifyMode: TypeAlias = Literal["none", "optional", "required"]

VERSIONS: Final[dict[str, ssl.TLSVersion]] = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
VERIFY_MODES: Final[dict[str, ssl.VerifyMode]] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
OLD_CIPHERS: Final = "DEFAULT:@SECLEVEL=0"  # OpenSSL 3 speaks TLS 1.0 and 1.1 at this level only


@dataclass(frozen=True, kw_only=True)
class TlsOptions:
    """TLS options of a listener, or of a connection that starts TLS later.

    The files are read when the options are built, so share one object among listeners and connections.

    Attributes:
        certfile: The certificate in PEM form, followed by its chain without the root.
        keyfile: Its private key; None if `certfile` holds it.
        password: The password of an encrypted private key.
        sni: Further certificates by the server name a client asks for (RFC 6066 section 3): "mail.example.org", or
            `*.example.org` for any one label, an international name in its ASCII form. A client that asks for another
            name, or for none, gets `certfile`'s.
        client_ca: A PEM file with the authorities that may sign client certificates.
        verify: Whether clients need a certificate signed by them: "none" does not ask for one, "optional" takes clients
            without one, "required" does not. If None, it is "required" with `client_ca` and "none" without.
        alpn: Application protocols, the preferred first, such as ("h2", "http/1.1") (RFC 7301). A client that offers
            none of them is served without one.
        minimum_version: The oldest version: "1.2" or "1.3". "1.0" and "1.1" are insecure (RFC 8996); use them for old
            clients only.
        maximum_version: The newest version; None allows the newest there is.
        ciphers: The ciphers of TLS 1.2 and older, in OpenSSL's form (openssl-ciphers(1)); None leaves them to Python.

    Raises:
        InvalidOption: If a value is not allowed, or a file is missing, unreadable or does not match.
    """

    certfile: str | Path
    keyfile: str | Path | None = None
    password: str | bytes | None = field(default=None, repr=False)
    sni: Mapping[str, TlsCertificate] = field(default_factory=dict)
    client_ca: str | Path | None = None
    verify: VerifyMode | None = None
    alpn: Iterable[str] = ()
    minimum_version: TlsVersion = "1.2"
    maximum_version: TlsVersion | None = None
    ciphers: str | None = None

    def __post_init__(self) -> None:
        """Validate everything by building the context that a listener would use."""
        object.__setattr__(self, "alpn", kept(self.alpn))
        object.__setattr__(self, "sni", read_sni("tls.sni", self.sni))
        check_options("tls", self)
        self._check_combinations()
        _ = self.context

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The context of connections, from the files as they were when the options were built."""
        return self.build_context()

    def __getstate__(self) -> dict[str, object]:
        """A copy in another process reads the files by itself."""
        return {name: value for name, value in vars(self).items() if name != "context"}

    @property
    def certificate(self) -> TlsCertificate:
        """The certificate for clients that ask for no other."""
        return TlsCertificate(certfile=self.certfile, keyfile=self.keyfile, password=self.password)

    def build_context(self) -> ssl.SSLContext:
        """Read the files again, and make a new context for connections.

        Raises:
            InvalidOption: If a file is missing, unreadable or does not match.
        """
        context = self._context(self.certificate, "tls")
        by_name = {name.lower(): self._context(own, f'tls.sni["{name}"]') for name, own in self.sni.items()}
        choose_certificate(context, by_name)
        return context

    def _context(self, certificate: TlsCertificate, option: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 1.0 and 1.1 are the caller's explicit choice
            context.minimum_version = VERSIONS[self.minimum_version]
            if self.maximum_version is not None:
                context.maximum_version = VERSIONS[self.maximum_version]
        ciphers = self.ciphers or (OLD_CIPHERS if self.minimum_version < "1.2" else None)
        if ciphers is not None:
            try:
                context.set_ciphers(ciphers)
            except ssl.SSLError as error:
                reason = "this OpenSSL has no such cipher"
                raise InvalidOption(reason, option="tls.ciphers", value=ciphers, hint="See: openssl ciphers") from error
        certificate.load_into(context, option)
        self._trust_clients(context)
        if alpn := list(self.alpn):
            context.set_alpn_protocols(alpn)
        return context

    def _trust_clients(self, context: ssl.SSLContext) -> None:
        if self.client_ca is not None:
            load_authorities(context, "tls.client_ca", self.client_ca)
            context.verify_mode = VERIFY_MODES[self.verify or "required"]

    def _check_combinations(self) -> None:
        if self.maximum_version is not None and self.maximum_version < self.minimum_version:
            reason = f"it is below the minimum_version {self.minimum_version}: no client could connect"
            raise InvalidOption(reason, option="tls.maximum_version", value=self.maximum_version)
        if self.client_ca is None and self.verify in ("optional", "required"):
            reason = "it needs client_ca, the authorities that may sign client certificates"
            raise InvalidOption(reason, option="tls.verify", value=self.verify)
        if self.client_ca is not None and self.verify == "none":
            reason, hint = 'it does nothing with verify="none"', 'Leave it out, or set verify="optional".'
            raise InvalidOption(reason, option="tls.client_ca", value=str(self.client_ca), hint=hint)
        check_sni("tls.sni", self.sni)


class ServerSide(ssl.SSLObject):
    """Our side of one TLS connection, which remembers the name the client asked for.

    Attributes:
        server_name: That name; None if it asked for none.
    """

    server_name: str | None = None


def choose_certificate(context: ssl.SSLContext, by_name: Mapping[str, ssl.SSLContext]) -> None:
    """Make connections of a context use the certificate of the server name that the client asks for.

    Args:
        context: The context for all other names.
        by_name: Contexts by lower-case name. In names that begin with "*.", the star stands for one label.
    """

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name is None:
            return None
        if not is_visible(name):
            return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if isinstance(connection, ServerSide):
            connection.server_name = name
        if (chosen := find_by_name(by_name, name)) is not None:
            connection.context = chosen
        return None

    context.sslobject_class = ServerSide
    context.sni_callback = choose
