"""The server's side of one DTLS session: datagrams in, plaintext and datagrams out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from OpenSSL import SSL

from esockd_core._dtls.records import RECORD_HEADER_BYTES, is_affordable, pack_records, split_records

if TYPE_CHECKING:
    from esockd_core._dtls.hello import ClientHello
    from esockd_core._options.dtls_context import DtlsContext

MAX_MESSAGE_BYTES: Final = 16_384  # of one record (RFC 5246 section 6.2.1)
TAKE_BYTES: Final = 65_536
MAX_HANDSHAKE_BYTES: Final = 262_144  # received; several times what a chain of certificates comes to, sent again


class DtlsSession:
    """A session of a client that has proven its address.

    Args:
        context: What the sessions of the listener share.
        hello: The client's hello with its proven cookie.

    Attributes:
        handshaken: Whether the handshake is done.
        peer_finished: Whether the peer has finished (close_notify); half-closing is unknown among datagrams.
        finished: Whether this side has.
        error: Why the session failed. Nothing more is received or sent, but `take` may have an alert for the peer.
        notes: What was learned in the handshake.
        handshake_bytes: The length of what the peer has sent for the handshake.
    """

    __slots__ = (
        "_context",
        "_is_settled",
        "_least_bytes",
        "error",
        "finished",
        "handshake_bytes",
        "handshaken",
        "notes",
        "peer_finished",
        "tls",
    )

    def __init__(self, context: DtlsContext, hello: ClientHello) -> None:
        self._context = context
        self.tls, self.notes = context.connect()
        self.handshaken = False
        self.peer_finished = False
        self.finished = False
        self.error: SSL.Error | None = None
        self.handshake_bytes = 0
        self._least_bytes = 0  # of a record that can be genuine
        self._is_settled = False  # whether what OpenSSL kept until the end of the handshake is read
        try:
            self.tls.bio_write(hello.record)
            self.tls.DTLSv1_listen()  # takes over the numbers of the exchange that went before
        except SSL.Error as error:
            self._fail(error)
        else:
            self._shake()

    def feed(self, datagram: bytes) -> list[bytes]:
        """Take a datagram of the peer. Afterwards there may be datagrams to send.

        Returns:
            The messages in it, each as the peer sent it. What is not genuine is passed over (RFC 6347 section 4.1.2.7).
        """
        messages: list[bytes] = []
        for record in split_records(datagram):
            if self.peer_finished or self.error is not None:
                break
            if self.handshaken:
                if len(record) < self._least_bytes:
                    continue
            else:
                if not is_affordable(record, self._context.takes_certificates):
                    continue
                self.handshake_bytes += len(record)
            self.tls.bio_write(record)
            if self.handshaken or self._shake():
                self._read_into(messages)
            elif self.handshake_bytes > MAX_HANDSHAKE_BYTES:
                self._fail(SSL.Error("the handshake is too long"))
        return messages

    def _read_into(self, messages: list[bytes]) -> None:
        try:
            messages.append(self.tls.recv(MAX_MESSAGE_BYTES))
            while not self._is_settled:
                messages.append(self.tls.recv(MAX_MESSAGE_BYTES))
        except SSL.WantReadError:
            self._is_settled = True
        except SSL.ZeroReturnError:
            self.peer_finished = True
        except SSL.Error as error:
            self._fail(error)

    def _shake(self) -> bool:
        try:
            self._context.shake(self.tls, self.notes)
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            self._fail(error)
            return False
        self.handshaken = True
        self._least_bytes = RECORD_HEADER_BYTES + self._context.least_record_bytes(self.tls)
        return True

    def _fail(self, error: SSL.Error) -> None:
        self.error = error.with_traceback(None)  # its frames would keep their arguments alive

    def take(self) -> list[bytes]:
        """The datagrams to send now."""
        written = self._written()
        return pack_records(written, self._context.mtu) if written else []

    def _written(self) -> bytes:
        parts: list[bytes] = []
        try:
            while True:
                parts.append(self.tls.bio_read(TAKE_BYTES))
                if len(parts[-1]) < TAKE_BYTES:
                    break
        except SSL.WantReadError:
            pass
        return b"".join(parts)

    def write(self, message: bytes) -> bytes:
        """Seal a message of 1 to 16,384 bytes, and return the datagram to send; b"" if the session has failed."""
        try:
            self.tls.send(message)
        except SSL.Error as error:
            self._fail(error)
            return b""
        return self._written()

    def finish(self) -> list[bytes]:
        """Finish, and return the datagrams to send: close_notify, if the handshake is done."""
        if not self.finished and self.handshaken and self.error is None:
            try:
                self.tls.shutdown()
            except SSL.Error as error:
                self._fail(error)
        self.finished = True
        return self.take()

    def timeout(self) -> float | None:
        """The seconds until `handle_timeout` is due; None if nothing has to be sent again."""
        return None if self.error is not None else self.tls.DTLSv1_get_timeout()

    def handle_timeout(self) -> list[bytes]:
        """Return what has to be sent again, if it is time (RFC 6347 section 4.2.4)."""
        try:
            self.tls.DTLSv1_handle_timeout()
        except SSL.Error as error:  # it has tried a dozen times
            self._fail(error)
        return self.take()

    def why_failed(self) -> str:
        """Why it failed, in OpenSSL's words."""
        if self.error is None:
            return ""
        given = self.error.args[0] if self.error.args else None
        reason = ", ".join(each[-1] for each in given) if isinstance(given, list) else str(self.error)
        return f"{reason}: {self.notes.refusal}" if self.notes.refusal else reason
