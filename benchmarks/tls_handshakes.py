"""What one TLS handshake costs the server, by key, version and resumption; `tls.py` prints it.

In memory, so that nothing but the engine is in the figure: a client of Python's `ssl` on the other side, and CPU time
of the thread around each call of the engine. The longest of these calls is what a handshake stalls an event loop for.
"""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from esockd_core import TlsOptions
from esockd_core._tls.engine import TlsEngine
from harness.rounds import Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HANDSHAKES = 100
KEYS: dict[str, Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = {
    "ECDSA P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA 3072": lambda: rsa.generate_private_key(65537, 3072),
    "RSA 4096": lambda: rsa.generate_private_key(65537, 4096),
}
VERSIONS = {"1.3": ssl.TLSVersion.TLSv1_3, "1.2": ssl.TLSVersion.TLSv1_2}
CASES = {
    f"{key}, TLS {version}{', resumed' if resumed else ''}": (key, version, resumed)
    for key in KEYS
    for version in VERSIONS
    for resumed in (False, True)
    if not resumed or key == "ECDSA P-256"  # a resumed handshake has no use for the key
}


def write_certificate(folder: Path, key: str) -> Path:
    """A self-signed certificate with a key of this kind, made once."""
    file = folder / f"{key}.pem"
    if not file.exists():
        private = KEYS[key]()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(private, hashes.SHA256())
        )
        file.write_bytes(
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
    return file


class Handshakes:
    """Handshakes of one case."""

    def __init__(self, folder: Path, case: str) -> None:
        key, version, self._resumes = CASES[case]
        file = write_certificate(folder, key)
        self.server = TlsOptions(certfile=file).context
        self.client = ssl.create_default_context(cafile=str(file))
        self.client.minimum_version = self.client.maximum_version = VERSIONS[version]
        self._session: ssl.SSLSession | None = None

    def shake(self) -> list[int]:
        """One handshake; the CPU time of each step of the server in nanoseconds."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client.wrap_bio(incoming, outgoing, server_hostname="localhost", session=self._session)
        steps = []
        began = time.thread_time_ns()
        engine = TlsEngine(self.server)
        steps.append(time.thread_time_ns() - began)
        while not engine.handshaken:
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            data = outgoing.read()
            began = time.thread_time_ns()
            engine.feed(data)
            sealed = engine.take()
            steps.append(time.thread_time_ns() - began)
            if engine.error is not None:
                raise engine.error
            incoming.write(sealed)
        client.do_handshake()
        if client.session_reused is not (self._session is not None):
            raise AssertionError("a session was to be resumed and was not, or the other way round")
        if self._resumes and self._session is None:
            incoming.write(engine.write(b"x"))  # the ticket of TLS 1.3 comes behind the handshake
            client.read(1)
            self._session = client.session
        return steps

    def measure(self) -> Sample:
        """Microseconds of CPU time for a handshake, and the longest steps of all, likewise."""
        for _ in range(5):
            self.shake()
        taken = [self.shake() for _ in range(HANDSHAKES)]
        longest = sorted(max(steps) / 1000 for steps in taken)
        return Sample(fmean(sum(steps) / 1000 for steps in taken), {"longest_us": longest})
