"""How a listener speaks TLS: validated when built, certificates and keys included, so nothing opens with a bad one."""

from __future__ import annotations

import re
import ssl
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeAlias, cast

from esockd_core._errors import InvalidOption

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
# As they travel (RFC 6066 section 3): international names in their ASCII form, and no dot at the end.
SERVER_NAME: Final = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.IGNORECASE)
VISIBLE: Final = re.compile("[!-~]+")
MAX_ALPN_BYTES: Final = 255  # of one name (RFC 7301 section 3.1)
OLD_CIPHERS: Final = "DEFAULT:@SECLEVEL=0"  # OpenSSL 3 speaks TLS 1.0 and 1.1 at this level only


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsCertificate:
    """A certificate and its private key, in PEM files.

    Attributes:
        certfile: The certificate, followed by the chain up to, and without, the root.
        keyfile: The private key; None when it is in `certfile`.
        password: Of an encrypted private key.
    """

    certfile: str | Path
    keyfile: str | Path | None = None
    password: str | bytes | None = field(default=None, repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Read the files.

        Raises:
            InvalidOption: A file is missing or no PEM, the key does not match, or it is encrypted and the password
                is missing or wrong.
        """
        password = self._ask_nobody if self.password is None else self.password
        for name in ("certfile", "keyfile"):
            if (file := getattr(self, name)) is not None:
                check_file(name, file)
        try:
            context.load_cert_chain(self.certfile, self.keyfile, password)
        except ssl.SSLError as error:
            raise InvalidOption(self._explain(error)) from error
        except (OSError, TypeError, ValueError) as error:
            raise InvalidOption(f"certfile {self.certfile}: {error}") from error

    def _ask_nobody(self) -> NoReturn:
        # Without it OpenSSL would ask on the terminal.
        raise InvalidOption(f"the private key in {self.keyfile or self.certfile} is encrypted: give its password")

    def _explain(self, error: ssl.SSLError) -> str:
        key = self.keyfile or self.certfile
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the private key in {key} does not belong to the certificate in {self.certfile}"
        if self.password is not None and error.reason not in ("NO_START_LINE", "PEM lib"):
            return f"the private key in {key} cannot be read: is the password right? ({error.reason or error})"
        return (
            f"no certificate and private key in PEM form in {self.certfile}"
            f"{'' if self.keyfile is None else f' and {self.keyfile}'} ({error.reason or error})"
        )


@dataclass(frozen=True, kw_only=True)
class TlsOptions:
    """How a listener, or a connection that starts TLS later, speaks TLS.

    The files are read when the options are built, so share one object over listeners and connections.

    Attributes:
        certfile: The certificate in PEM form, followed by the chain up to, and without, the root.
        keyfile: Its private key; None when it is in `certfile`.
        password: Of an encrypted private key.
        sni: Further certificates by the server name a client asks for (RFC 6066 section 3): "mail.example.org", or
            "*.example.org" for any one label, an international name in its ASCII form. A client that asks for another
            name, or for none, gets `certfile`'s.
        client_ca: Certificates of the authorities that may have signed the client's, in PEM form.
        verify: Whether a client must have a certificate of theirs: "none" (not asked), "optional" (none, or a valid
            one), "required". When not given: "required" with `client_ca` and "none" without.
        alpn: Application protocols, the preferred first, such as ("h2", "http/1.1") (RFC 7301). A client that offers
            none of them is served without one.
        minimum_version: "1.2" or "1.3"; "1.0" and "1.1" are insecure (RFC 8996), and for old clients only.
        maximum_version: The same; None for the newest.
        ciphers: Of TLS 1.2 and older, in OpenSSL's form (openssl-ciphers(1)); None for Python's choice.

    Raises:
        InvalidOption: A value is out of bounds, or a file is missing, unreadable or does not match.
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
        """Validate everything, by building what a listener would use."""
        self._check_values()
        _ = self.context

    @cached_property
    def context(self) -> ssl.SSLContext:
        """What connections use, made of the files as they were when the options were built."""
        return self.build_context()

    def __getstate__(self) -> dict[str, object]:
        """A copy in another process reads the files by itself."""
        return {name: value for name, value in vars(self).items() if name != "context"}

    @property
    def certificate(self) -> TlsCertificate:
        """The certificate for whoever asks for no other."""
        return TlsCertificate(certfile=self.certfile, keyfile=self.keyfile, password=self.password)

    def build_context(self) -> ssl.SSLContext:
        """Read the files anew, and make what connections need.

        Raises:
            InvalidOption: A file is missing, unreadable or does not match.
        """
        context = self._context(self.certificate)
        choose_certificate(context, {name.lower(): self._context(own) for name, own in self.sni.items()})
        return context

    def _context(self, certificate: TlsCertificate) -> ssl.SSLContext:
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
                raise InvalidOption(
                    f'ciphers "{ciphers}" name no cipher of this OpenSSL. See: openssl ciphers'
                ) from error
        certificate.load_into(context)
        self._trust_clients(context)
        if alpn := list(self.alpn):
            context.set_alpn_protocols(alpn)
        return context

    def _trust_clients(self, context: ssl.SSLContext) -> None:
        if self.client_ca is not None:
            check_file("client_ca", self.client_ca)
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as error:
                raise InvalidOption(f"client_ca {self.client_ca} holds no certificate in PEM form ({error})") from error
            context.verify_mode = VERIFY_MODES[self.verify or "required"]

    def _check_values(self) -> None:
        for name in ("minimum_version", "maximum_version"):
            value = getattr(self, name)
            if value not in VERSIONS and not (value is None and name == "maximum_version"):
                raise InvalidOption(f'{name} is {value!r}; it is "1.0", "1.1", "1.2" or "1.3".')
        if self.maximum_version is not None and self.maximum_version < self.minimum_version:
            raise InvalidOption(
                f"maximum_version {self.maximum_version} is below minimum_version {self.minimum_version}: "
                "no client could connect."
            )
        if self.verify is not None and self.verify not in VERIFY_MODES:
            raise InvalidOption(f'verify is {self.verify!r}; it is "none", "optional" or "required".')
        if self.client_ca is None and self.verify in ("optional", "required"):
            raise InvalidOption(f'verify="{self.verify}" needs client_ca: the authorities whose certificates count.')
        if self.client_ca is not None and self.verify == "none":
            raise InvalidOption('client_ca does nothing with verify="none": drop the one, or set "optional".')
        object.__setattr__(self, "alpn", check_alpn(self.alpn))
        if not isinstance(self.sni, Mapping):
            raise InvalidOption(f"sni is {self.sni!r}; it takes a mapping of server names to TlsCertificate.")
        for server, certificate in cast("Mapping[object, object]", self.sni).items():
            if not isinstance(server, str) or SERVER_NAME.fullmatch(server) is None:
                raise InvalidOption(
                    f'sni has {server!r}; a server name is "mail.example.org" or "*.example.org", and an international '
                    'one as clients send it: "xn--bcher-kva.example".'
                )
            if not isinstance(certificate, TlsCertificate):
                raise InvalidOption(f'sni["{server}"] is {certificate!r}; it takes a TlsCertificate.')


class ServerSide(ssl.SSLObject):
    """Our side of one TLS connection, which remembers the name the client asked for.

    Attributes:
        server_name: The name, None when it asked for none.
    """

    server_name: str | None = None


def choose_certificate(context: ssl.SSLContext, by_name: Mapping[str, ssl.SSLContext]) -> None:
    """Make connections of a context use the certificate of the server name that the client asks for.

    Args:
        context: For every name without one of its own.
        by_name: Lower-case names, of which those that begin with "*." stand for one label.
    """

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name is None:
            return None
        if VISIBLE.fullmatch(name) is None:  # no host has such a name, and whoever logs it would be sorry
            return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if isinstance(connection, ServerSide):
            connection.server_name = name
        name = name.lower()
        chosen = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if chosen is not None:
            connection.context = chosen
        return None

    context.sslobject_class = ServerSide
    context.sni_callback = choose


def check_alpn(given: Iterable[str]) -> tuple[str, ...]:
    """Application protocols as a tuple.

    Raises:
        InvalidOption: They are no names that ALPN has room for.
    """
    if isinstance(given, str | bytes):
        raise InvalidOption(f'alpn is {given!r}; it takes several names, such as ("h2", "http/1.1").')
    alpn = tuple(given)
    for name in cast("tuple[object, ...]", alpn):
        if not isinstance(name, str) or not name.isascii() or not 1 <= len(name) <= MAX_ALPN_BYTES:
            raise InvalidOption(
                f"alpn has {name!r}; a name has 1 to {MAX_ALPN_BYTES} ASCII characters (RFC 7301 section 3.1)."
            )
    return alpn


def check_file(name: str, file: str | Path) -> None:
    """Say more clearly than OpenSSL does that a file is not there.

    Raises:
        InvalidOption: It is missing, or no path at all.
    """
    if not isinstance(file, str | Path):
        raise InvalidOption(f"{name} is {file!r}; it takes the path of a PEM file.")
    path = Path(file)
    if not path.exists():
        raise InvalidOption(f"{name} {file} does not exist (looked from {Path.cwd()})")
    if path.is_dir():
        raise InvalidOption(f"{name} {file} is a directory; give a PEM file")
