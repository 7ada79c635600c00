"""TLS without I/O: ciphertext in, plaintext out, and the other way round.

Both handler styles use it on every event loop. It takes bytes that were already read, as after a PROXY header or a
STARTTLS command, which an `ssl.SSLSocket` cannot.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from esockd_core._options.tls import ServerSide

MAX_PLAINTEXT_BYTES: Final = 16_384  # of one record (RFC 8446 section 5.1)
MAX_RECORD_BYTES: Final = MAX_PLAINTEXT_BYTES + 256 + 5  # section 5.2; TLS 1.2 allows 1,792 more and nobody sends them
# A memory BIO never shrinks during the life of a connection, so nothing large goes through it at once.
TAKE_BYTES: Final = 2 * MAX_PLAINTEXT_BYTES
HEADER_BYTES: Final = 5  # of a record (RFC 8446 section 5.1): type, version, length
CONTENT_TYPES: Final = range(20, 25)  # RFC 8446 section 5.1, RFC 5246 section 6.2.1, and 24 of RFC 6520
LONGEST_RECORD_BYTES: Final = MAX_PLAINTEXT_BYTES + 2_048  # its body in TLS 1.2 (RFC 5246 section 6.2.3)
MAX_RECORDS_WITHOUT_DATA: Final = 32  # in a row, after the handshake: as in BoringSSL; Go takes 16
DATA_BYTES_PER_EMPTY_RECORD: Final = 1_024  # in TLS 1.3, where changing keys costs as much as decrypting 100 KB
MAX_HANDSHAKE_RECORDS: Final = 4_096  # a long hello in pieces of some bytes each
MAX_HANDSHAKE_BYTES: Final = 262_144  # several times what chains of certificates come to


class TlsEngine:
    """One side of one TLS connection: the server's, or the client's, which speaks first.

    Args:
        context: Its TLS context, which also decides the side.
        server_name: On the client's side, the name to ask for and to find in the server's certificate.

    Attributes:
        handshaken: Whether the handshake is done.
        peer_finished: Whether the peer has finished sending (close_notify, RFC 8446 section 6.1).
        finished: Whether this side has.
        error: Why the connection failed. Nothing more can be received or sent, but `take` has the alert for the peer.
        outgoing: Ciphertext for the peer, which `take` empties.
        is_flooded: Whether it failed because the peer sent too many records without data, or too long a handshake.
        handshake_bytes: The length of the records of the handshake so far.
    """

    __slots__ = (
        "_begun",
        "_incoming",
        "_owed_bytes",
        "_read",
        "_unwritten",
        "error",
        "finished",
        "handshake_bytes",
        "handshaken",
        "is_flooded",
        "outgoing",
        "peer_finished",
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
        self.handshake_bytes = 0
        self.is_flooded = False
        self._begun = b""  # of a record whose end has not come
        self._owed_bytes = 0  # of data, for records that had none
        if not is_server:
            self._shake()

    @property
    def has_received(self) -> bool:
        """Whether the peer has sent anything."""
        return bool(self.handshake_bytes or self._begun)

    def take(self) -> bytes:
        """The ciphertext to send now. After the handshake it includes what was written before."""
        if self._unwritten and self.handshaken:
            unwritten, self._unwritten = self._unwritten, bytearray()
            return self.outgoing.read() + self._write_large(memoryview(unwritten))
        return self.outgoing.read()

    def feed(self, data: bytes) -> bytes:
        """Take ciphertext from the peer. Afterwards there may be ciphertext to send.

        Returns:
            The plaintext that became readable, including what came before an error.
        """
        if not self._begun and len(data) > HEADER_BYTES and len(data) == _record_bytes(data, 0):
            return self._feed(data)  # one record, as most messages are
        return self._feed_records(data)

    def _feed_records(self, data: bytes) -> bytes:
        """Feed record by record, because a peer may send any number of records without data, and each takes work."""
        if self._begun:
            data = self._begun + data
        view = memoryview(data)
        parts: list[bytes] = []
        at = 0
        while at < len(view) and not (self.peer_finished or self.error is not None):
            end = at + _record_bytes(view, at)
            if end > len(view):
                break
            parts.append(self._feed(view[at:end]))
            at = end
        self._begun = b"" if self.peer_finished or self.error is not None else data[at:]
        return b"".join(parts)

    def _feed(self, data: bytes | memoryview) -> bytes:
        if self.peer_finished or self.error is not None:
            return b""  # RFC 8446 section 6.1: ignore what comes after a closure alert
        incoming = self._incoming
        incoming.write(data)
        if not self.handshaken:
            self.handshake_bytes += len(data)  # not of a whole read, which data may follow
            if not self._shake():
                self._note_empty_record(MAX_HANDSHAKE_RECORDS)
                if self.handshake_bytes > MAX_HANDSHAKE_BYTES:
                    self._flooded("the handshake is too long")
                return b""
        try:
            plaintext = self._read(MAX_PLAINTEXT_BYTES)
            if self._owed_bytes:
                self._pay_back(len(plaintext))
            if plaintext and not incoming.pending:
                return plaintext  # a whole record, and nothing behind it: asking for more would cost an exception
        except ssl.SSLWantReadError:
            self._note_empty_record(MAX_RECORDS_WITHOUT_DATA)
            return b""
        except ssl.SSLError as error:
            self._end(error)
            return b""
        return self._read_on(plaintext)

    def _note_empty_record(self, most: int) -> None:
        self._owed_bytes += DATA_BYTES_PER_EMPTY_RECORD
        if self._owed_bytes > most * DATA_BYTES_PER_EMPTY_RECORD:
            self._flooded("too many records without data")

    def _pay_back(self, received: int) -> None:
        # Old versions put an empty record before each with data, against BEAST: in TLS 1.3 nobody has a reason to.
        self._owed_bytes = max(0, self._owed_bytes - received) if self.tls.version() == "TLSv1.3" else 0

    def _flooded(self, why: str) -> None:
        self.error = ssl.SSLError(why)
        self.is_flooded = True

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
            self.error = error.with_traceback(None)  # its frames would keep their arguments alive

    def _shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self.error = error.with_traceback(None)
            return False
        self.handshaken = True
        self._owed_bytes = 0
        return True

    def why_failed(self) -> str:
        """Why it failed, in OpenSSL's words."""
        if isinstance(self.error, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {self.error.verify_message}"
        return "" if self.error is None else self.error.reason or str(self.error)

    def write(self, data: bytes) -> bytes:
        """Encrypt, and return the ciphertext to send now; before the end of the handshake there is none.

        Raises:
            ssl.SSLError: If the connection failed, or if this side has finished sending.
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
        """Finish sending, and return the ciphertext to send. The peer may continue to send.

        Before the handshake is done there is nothing to send, and what was written is dropped.
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


def _record_bytes(data: bytes | memoryview, at: int) -> int:
    """The length of the record that begins there, as far as it is known; all that is left if it is not TLS."""
    left = len(data) - at
    if data[at] not in CONTENT_TYPES:
        return left
    if left < HEADER_BYTES:
        return HEADER_BYTES
    body = data[at + 3] << 8 | data[at + 4]
    return left if body > LONGEST_RECORD_BYTES else HEADER_BYTES + body
