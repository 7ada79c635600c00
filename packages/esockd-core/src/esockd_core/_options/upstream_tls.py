"""TLS options of a forwarder, which is a client of its upstreams and verifies them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from esockd_core._checks import kept
from esockd_core._errors import InvalidOption
from esockd_core._options.certificate import TlsCertificate, load_authorities
from esockd_core._options.table import OPTIONS, check_options

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class UpstreamTlsOptions:
    """Options for TLS 1.2 or newer to upstreams.

    The files are read when the options are built.

    Attributes:
        ca_file: A PEM file with the authorities that may sign an upstream's certificate; None uses those that the
            system trusts.
        verify: Whether an upstream's certificate has to be signed by them, for its name. Without it, anybody on the way
            can read and change what is forwarded.
        server_name: The name to ask for (SNI) and to find in the certificate; None is the host of each upstream.
        certificate: The certificate to show to an upstream that asks for one.
        alpn: The application protocols to offer, the preferred first (RFC 7301).

    Raises:
        InvalidOption: If a value is not allowed, or a file is missing, unreadable or does not match.
    """

    ca_file: str | Path | None = None
    verify: bool = True
    server_name: str | None = None
    certificate: TlsCertificate | None = None
    alpn: Iterable[str] = ()

    def __post_init__(self) -> None:
        """Validate everything by building the context that connections use."""
        object.__setattr__(self, "alpn", kept(self.alpn))
        check_options("forward.tls", self)
        if not self.verify and self.ca_file is not None:
            reason, hint = "it does nothing with verify=False", "Leave out the one or the other."
            raise InvalidOption(reason, option="tls.ca_file", value=str(self.ca_file), hint=hint)
        certificate: object = self.certificate
        if not isinstance(certificate, TlsCertificate | None):
            reason = f"it takes {OPTIONS['forward.tls.certificate'].kind.takes}"
            raise InvalidOption(reason, option="tls.certificate", value=certificate)
        _ = self.context

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The context of connections, from the files as they were when the options were built."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.options |= ssl.OP_NO_RENEGOTIATION  # the engine knows none
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file is None:
            context.load_default_certs()
        else:
            load_authorities(context, "tls.ca_file", self.ca_file)
        if self.certificate is not None:
            self.certificate.load_into(context, "tls.certificate")
        if alpn := list(self.alpn):
            context.set_alpn_protocols(alpn)
        return context

    def __getstate__(self) -> dict[str, object]:
        """A copy in another process reads the files by itself."""
        return {name: value for name, value in vars(self).items() if name != "context"}
