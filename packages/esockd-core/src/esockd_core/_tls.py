"""TLS without I/O: ciphertext in, plaintext out, and the other way round.

The one engine under both handler styles and both transports. It takes bytes already read, as behind a PROXY header or
a STARTTLS, which an `ssl.SSLSocket` cannot.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from esockd_core._tls_options import ServerSide

MAX_PLAINTEXT_BYTES: Final = 16_384  # of one record (RFC 8446 section 5.1)
MAX_RECORD_BYTES: Final = MAX_PLAINTEXT_BYTES + 256 + 5  # section 5.2; TLS 1.2 allows 1,792 more and nobody sends them
# What goes through a memory BIO stays its size for the life of the connection: so nothing large goes through at once.
FEED_BYTES: Final = MAX_RECORD_BYTES
TAKE_BYTES: Final = 2 * MAX_PLAINTEXT_BYTES


class TlsEngine:
    """One side of one TLS connection: the server's, or the client's, who speaks first.

    Args:
        context: What decides which side it is.
        server_name: On the client's side, the name to ask for and to find in the server's certificate.

    Attributes:
        handshaken: Whether the handshake is done.
        peer_finished: Whether the peer said that it sends no more (close_notify, RFC 8446 section 6.1).
        finished: Whether this side said so.
        error: What went wrong: nothing more can be received or sent, but what is in `take` explains it to the peer.
        outgoing: Ciphertext for the peer, which `take` empties.
        received_bytes: Ciphertext received so far, up to the end of the handshake.
    """

    __slots__ = (
        "_incoming",
        "_read",
        "_unwritten",
        "error",
        "finished",
        "handshaken",
        "outgoing",
        "peer_finished",
        "received_bytes",
        "tls",
    )

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        is_server = context.protocol != ssl.PROTOCOL_TLS_CLIENT
        self.tls: ServerSide = context.wrap_bio(self._incoming, self.outgoing, is_server, server_name)  # type: ignore[assignment] # the context's sslobject_class
        self._read = self.tls.read
        self._unwritten = bytearray()  # plaintext that waits for the end of the handshake
        self.handshaken = False
        self.peer_finished = False
        self.finished = False
        self.error: ssl.SSLError | None = None
        self.received_bytes = 0
        if not is_server:
            self._shake()

    def take(self) -> bytes:
        """The ciphertext to send now: behind a handshake, also of what was written before its end."""
        if self._unwritten and self.handshaken:
            unwritten, self._unwritten = self._unwritten, bytearray()
            return self.outgoing.read() + self._write_large(memoryview(unwritten))
        return self.outgoing.read()

    def feed(self, data: bytes) -> bytes:
        """Take ciphertext from the peer; afterwards there may be some to send.

        Returns:
            The plaintext that became readable. What came before an error is still returned with it.
        """
        if len(data) <= FEED_BYTES:
            return self._feed(data)
        view = memoryview(data)
        return b"".join([self._feed(view[at : at + FEED_BYTES]) for at in range(0, len(view), FEED_BYTES)])

    def _feed(self, data: bytes | memoryview) -> bytes:
        if self.peer_finished or self.error is not None:
            return b""  # RFC 8446 section 6.1: ignore what comes after a closure alert
        incoming = self._incoming
        incoming.write(data)
        if not self.handshaken and not self._shake():
            self.received_bytes += len(data)
            return b""
        try:
            plaintext = self._read(MAX_PLAINTEXT_BYTES)
            if plaintext and not incoming.pending:
                return plaintext  # a whole record, and nothing behind it: asking for more would cost an exception
        except ssl.SSLWantReadError:
            plaintext = b""
        except ssl.SSLError as error:
            self._end(error)
            return b""
        else:
            plaintext = self._read_on(plaintext)
        return plaintext

    def _read_on(self, first: bytes) -> bytes:
        parts = [first]
        try:
            while parts[-1]:
                parts.append(self._read(MAX_PLAINTEXT_BYTES))
            self.peer_finished = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._end(error)
        return b"".join(parts)

    def _end(self, error: ssl.SSLError) -> None:
        if isinstance(error, ssl.SSLZeroReturnError):
            self.peer_finished = True
        else:
            self.error = error

    def _shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self.error = error
            return False
        self.handshaken = True
        return True

    def why_failed(self) -> str:
        """What went wrong, in OpenSSL's words."""
        if isinstance(self.error, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {self.error.verify_message}"
        return "" if self.error is None else self.error.reason or str(self.error)

    def write(self, data: bytes) -> bytes:
        """Encrypt, and give the ciphertext to send now; before the end of the handshake nothing.

        Raises:
            ssl.SSLError: The connection failed, or this side has said that it sends no more.
        """
        if not self.handshaken:
            self._unwritten += data
            return b""
        if not data:
            return b""  # OpenSSL has no record for it
        if len(data) > MAX_PLAINTEXT_BYTES:
            return self._write_large(memoryview(data))
        self.tls.write(data)
        return self.outgoing.read()

    def _write_large(self, data: memoryview) -> bytes:
        sealed: list[bytes] = []
        at = 0
        while at < len(data):
            at += self.tls.write(data[at : at + MAX_PLAINTEXT_BYTES])
            if self.outgoing.pending >= TAKE_BYTES:
                sealed.append(self.outgoing.read())
        sealed.append(self.outgoing.read())
        return b"".join(sealed)

    @property
    def unwritten_bytes(self) -> int:
        """Plaintext that is not encrypted yet."""
        return len(self._unwritten)

    def finish(self) -> bytes:
        """Say that this side sends no more, and give the ciphertext to send; the peer may go on sending.

        Before the handshake is done there is nothing to say, and what was written is thrown away.
        """
        if self.finished or not self.handshaken or self.error is not None:
            self.finished = True
            self._unwritten.clear()
            return self.outgoing.read()
        self.finished = True
        try:
            # It says so at once, then looks for the peer's answer, which need not have come.
            self.tls.unwrap()
            self.peer_finished = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error
        return self.outgoing.read()
