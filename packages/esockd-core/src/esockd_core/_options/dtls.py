"""DTLS options of a listener. They are validated when built, certificates, keys and the extra `dtls` included."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from esockd_core._checks import kept
from esockd_core._errors import InvalidOption
from esockd_core._options.certificate import TlsCertificate, check_sni, load_authorities, read_sni
from esockd_core._options.psk import key_finder
from esockd_core._options.table import check_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from esockd_core._options.dtls_context import DtlsContext
    from esockd_core._options.psk import PskSource
    from esockd_core._options.tls import VerifyMode

DEFAULT_MTU_BYTES: Final = 1_232  # the 1,280 that every IPv6 path carries (RFC 8200 section 5), less both headers
INSTALL: Final = "Install it: pip install 'esockd-core[dtls]'"


@dataclass(frozen=True, kw_only=True)
class DtlsOptions:
    """DTLS options of a listener. They need the extra `dtls` of this package.

    The files are read when the options are built, so share one object among listeners. DTLS 1.2 is the only version.

    Attributes:
        certfile: The certificate in PEM form, followed by its chain without the root; None with `psk` only.
        keyfile: Its private key; None if `certfile` holds it.
        password: The password of an encrypted private key.
        sni: Further certificates by the server name a client asks for, as for TLS.
        client_ca: A PEM file with the authorities that may sign client certificates.
        verify: Whether clients need a certificate signed by them: "none" does not ask for one, "optional" takes clients
            without one, "required" does not. If None, it is "required" with `client_ca` and "none" without. A client
            that uses a pre-shared key shows no certificate.
        psk: Pre-shared keys by identity (RFC 4279): a mapping, or a function that returns the key of an identity or
            None, or the path of a file with lines of identity, colon and key in hexadecimal. The function runs on the
            event loop during the handshake and must not block.
        alpn: Application protocols, the preferred first (RFC 7301). A client that offers none of them is served
            without one.
        ciphers: The ciphers of DTLS 1.2, in OpenSSL's form (openssl-ciphers(1)); None takes those with authenticated
            encryption (GCM, CCM and ChaCha20). With others (CBC), whoever knows a client's address can end its session,
            because OpenSSL takes one forged record for fatal. Small devices that know CCM_8 only (RFC 7252) need
            "ECDHE-ECDSA-AES128-CCM8:PSK-AES128-CCM8:@SECLEVEL=0".
        mtu: The largest datagram of a handshake, in bytes without the headers of UDP and IP. Data goes out as the
            handler sends it, one datagram a message.
        max_sessions: How many sessions may be open at once, handshakes included, where `max_connections` allows more.
            OpenSSL takes about 66 KiB for each: 4,096 come to 264 MiB. None leaves it to `max_connections`.

    Raises:
        InvalidOption: If a value is not allowed, a file is missing, unreadable or does not match, or pyOpenSSL is not
            installed or cannot do what is asked.
    """

    certfile: str | Path | None = None
    keyfile: str | Path | None = None
    password: str | bytes | None = field(default=None, repr=False)
    sni: Mapping[str, TlsCertificate] = field(default_factory=dict)
    client_ca: str | Path | None = None
    verify: VerifyMode | None = None
    psk: PskSource | None = field(default=None, repr=False)
    alpn: Iterable[str] = ()
    ciphers: str | None = None
    mtu: int = DEFAULT_MTU_BYTES
    max_sessions: int | None = 4_096

    def __post_init__(self) -> None:
        """Validate everything by building the context that a listener would use."""
        object.__setattr__(self, "alpn", kept(self.alpn))
        object.__setattr__(self, "sni", read_sni("dtls.sni", self.sni))
        check_options("dtls", self)
        self._check_combinations()
        check_sni("dtls.sni", self.sni)
        _ = self.context

    @cached_property
    def context(self) -> DtlsContext:
        """The context of sessions, from the files as they were when the options were built."""
        return self.build_context()

    def __getstate__(self) -> dict[str, object]:
        """A copy in another process reads the files by itself."""
        return {name: value for name, value in vars(self).items() if name != "context"}

    def build_context(self) -> DtlsContext:
        """Read the files again, and make a new context for sessions.

        Raises:
            InvalidOption: If a file is missing, unreadable or does not match, or pyOpenSSL is not installed.
        """
        try:
            from esockd_core._options.dtls_context import ClientRules, DtlsContext  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise InvalidOption("it needs pyOpenSSL, which is not installed", option="dtls", hint=INSTALL) from error
        find_key = None if self.psk is None else key_finder("dtls.psk", self.psk)
        self._check_files()
        return DtlsContext(
            certificate=self.certificate,
            sni={name.lower(): own for name, own in self.sni.items()},
            clients=None if self.client_ca is None else ClientRules(self.client_ca, self.verify != "optional"),
            find_key=find_key,
            alpn=tuple(self.alpn),
            ciphers=self.ciphers,
            mtu=self.mtu,
        )

    @property
    def certificate(self) -> TlsCertificate | None:
        """The certificate for clients that ask for no other."""
        if self.certfile is None:
            return None
        return TlsCertificate(certfile=self.certfile, keyfile=self.keyfile, password=self.password)

    def _check_files(self) -> None:
        """Let Python's `ssl` read them first: it tells what is wrong with which."""
        if (own := self.certificate) is not None:
            own.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "dtls")
        for name, certificate in self.sni.items():
            certificate.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), f'dtls.sni["{name}"]')
        if self.client_ca is not None:
            load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "dtls.client_ca", self.client_ca)

    def _check_combinations(self) -> None:
        if self.certfile is None:
            if self.psk is None:
                raise InvalidOption("it takes a certfile or psk", option="dtls", hint="Give at least one of them.")
            for name in ("keyfile", "sni", "client_ca"):
                if getattr(self, name):
                    raise InvalidOption("it does nothing without certfile", option=f"dtls.{name}")
        if self.client_ca is None and self.verify in ("optional", "required"):
            reason = "it needs client_ca, the authorities that may sign client certificates"
            raise InvalidOption(reason, option="dtls.verify", value=self.verify)
        if self.client_ca is not None and self.verify == "none":
            reason, hint = 'it does nothing with verify="none"', 'Leave it out, or set verify="optional".'
            raise InvalidOption(reason, option="dtls.client_ca", value=str(self.client_ca), hint=hint)
