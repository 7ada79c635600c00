"""How a forwarder speaks TLS to its upstreams: as a client, which verifies whom it speaks with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from esockd_core._errors import InvalidOption
from esockd_core._tls_options import TlsCertificate, check_alpn, check_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class UpstreamTlsOptions:
    """How to speak TLS to upstreams, of version 1.2 at least.

    The files are read when the options are built.

    Attributes:
        ca_file: Certificates of the authorities that may have signed an upstream's, in PEM form; None for those that
            the system trusts.
        verify: Whether an upstream's certificate has to be theirs, and for its name. Without it anybody on the way may
            read and change what is forwarded.
        server_name: The name to ask for (SNI) and to find in the certificate; None for the host of each upstream.
        certificate: What to show an upstream that asks for a certificate.
        alpn: Application protocols to offer, the preferred first (RFC 7301).

    Raises:
        InvalidOption: A value is out of bounds, or a file is missing, unreadable or does not match.
    """

    ca_file: str | Path | None = None
    verify: bool = True
    server_name: str | None = None
    certificate: TlsCertificate | None = None
    alpn: Iterable[str] = ()

    def __post_init__(self) -> None:
        """Validate everything, by building what connections use."""
        if not isinstance(self.verify, bool):
            raise InvalidOption(f"verify is {self.verify!r}; it is True or False.")
        if not self.verify and self.ca_file is not None:
            raise InvalidOption("ca_file does nothing with verify=False: drop the one or the other.")
        name: object = self.server_name
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidOption(f"server_name is {name!r}; it takes a name, or None for the host of each upstream.")
        if not isinstance(self.certificate, TlsCertificate | None):
            raise InvalidOption(f"certificate is {self.certificate!r}; it takes a TlsCertificate.")
        object.__setattr__(self, "alpn", check_alpn(self.alpn))
        _ = self.context

    @cached_property
    def context(self) -> ssl.SSLContext:
        """What connections use, made of the files as they were when the options were built."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.options |= ssl.OP_NO_RENEGOTIATION  # the engine knows none
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file is None:
            context.load_default_certs()
        else:
            check_file("ca_file", self.ca_file)
            try:
                context.load_verify_locations(self.ca_file)
            except (ssl.SSLError, OSError) as error:
                raise InvalidOption(f"ca_file {self.ca_file} holds no certificate in PEM form ({error})") from error
        if self.certificate is not None:
            self.certificate.load_into(context)
        if alpn := list(self.alpn):
            context.set_alpn_protocols(alpn)
        return context

    def __getstate__(self) -> dict[str, object]:
        """A copy in another process reads the files by itself."""
        return {name: value for name, value in vars(self).items() if name != "context"}
