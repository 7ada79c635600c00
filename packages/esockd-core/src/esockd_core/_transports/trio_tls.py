"""What stands in for a connection's socket on trio once more than the bare socket is read from."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import wait_readable, wait_writable

from esockd_core._connection import TLS_CUT_SHORT, TLS_FAILED
from esockd_core._peer_certificate import describe_tls
from esockd_core._tls import MAX_RECORD_BYTES, TlsEngine
from esockd_core._upgrade import UpgradeRefused, closed_in_handshake

if TYPE_CHECKING:
    from esockd_core._peer_certificate import TlsInfo

# With the record that the last read left unfinished this makes at most 64 KiB of plaintext: one read takes it all, and
# nothing stays behind that no poll of the socket would tell of.
READ_BYTES: Final = 65_536 - MAX_RECORD_BYTES
WRITE_BYTES: Final = 65_536


class Prefixed:
    """A non-blocking socket that first gives back what was read from it too early.

    Attributes:
        raw: The socket.
        buffered: What `recv` gives before it asks the socket.
    """

    def __init__(self, raw: socket.socket, prefix: bytes) -> None:
        self.raw = raw
        self.fileno = raw.fileno  # asked for at every wait
        self.buffered = prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def recv(self, max_bytes: int) -> bytes:
        """As of a socket."""
        if not self.buffered:
            return self.raw.recv(max_bytes)
        return self._take(max_bytes)

    def _take(self, max_bytes: int) -> bytes:
        data, self.buffered = self.buffered[:max_bytes], self.buffered[max_bytes:]
        return data


class TlsSocket(Prefixed):
    """A non-blocking socket that speaks TLS, after its handshake.

    Args:
        raw: What carries the ciphertext.
        engine: The engine that did the handshake.
        plaintext: What it gave with it.
    """

    def __init__(self, raw: socket.socket, engine: TlsEngine, plaintext: bytes) -> None:
        super().__init__(raw, plaintext)
        self._engine = engine
        self._unsent = b""  # ciphertext
        self._sealed_bytes = 0  # 1 where all is encrypted and some of it not sent
        self._info: TlsInfo | None = None
        self._look_at_end()

    @property
    def info(self) -> TlsInfo:
        """What is known of the connection."""
        if self._info is None:
            self._info = describe_tls(self._engine.tls)
        return self._info

    def recv(self, max_bytes: int) -> bytes:
        """Read as much plaintext as there is, up to `max_bytes`; nothing once the peer has said that it is finished.

        Raises:
            BlockingIOError: There is none yet.
            ConnectionAbortedError: The peer closed without saying so in TLS.
            ssl.SSLError: What came is no TLS of this connection.
        """
        engine = self._engine
        plaintext = self.buffered
        while not plaintext:
            if engine.peer_finished:
                return b""
            if engine.error is not None:
                raise engine.error
            data = self.raw.recv(READ_BYTES)
            if not data:
                if engine.finished:
                    return b""  # it need not answer our own farewell
                raise ConnectionAbortedError(TLS_CUT_SHORT)
            plaintext = engine.feed(data)
            self._look_at_end()
            if engine.outgoing.pending:
                self._unsent += engine.take()
                with suppress(OSError):  # the next read or write tells
                    self._flush()
        if len(plaintext) <= max_bytes:
            self.buffered = b""
            return plaintext
        self.buffered = plaintext[max_bytes:]
        return plaintext[:max_bytes]

    def _look_at_end(self) -> None:
        # The end that came behind plaintext has left the kernel with it: make polls tell of it all the same.
        if self._engine.peer_finished or self._engine.error is not None:
            with suppress(OSError):  # the peer may be gone already
                self.raw.shutdown(socket.SHUT_RD)

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send; say how much of `data` needs no second try.

        The last byte counts only when the ciphertext of all is gone, so that whoever waits to send the rest waits for
        that. It is not encrypted twice.

        Raises:
            BlockingIOError: The kernel has no room, and nothing more was taken.
        """
        if self._unsent and not self._flush():
            raise BlockingIOError
        sealed, self._sealed_bytes = self._sealed_bytes, 0
        piece = bytes(data[sealed : sealed + WRITE_BYTES])
        if not piece:
            return sealed
        self._unsent = self._engine.write(piece)
        if not self._flush():
            self._sealed_bytes = 1
        return sealed + len(piece) - self._sealed_bytes

    def shutdown(self, how: int) -> None:
        """Say in TLS and in TCP that nothing more will be sent.

        Raises:
            BlockingIOError: The kernel has no room for it: try again.
        """
        self._unsent += self._engine.finish()
        if self._unsent and not self._flush():
            raise BlockingIOError
        self.raw.shutdown(how)

    def _flush(self) -> bool:
        """Hand over ciphertext; say whether all is gone."""
        unsent = self._unsent
        try:
            sent = self.raw.send(unsent)
        except BlockingIOError:
            return False
        self._unsent = b"" if sent == len(unsent) else unsent[sent:]
        return not self._unsent


async def shake_hands(raw: socket.socket, engine: TlsEngine, received: bytes) -> TlsSocket:
    """Do the handshake.

    Args:
        raw: The connection's socket.
        engine: A fresh one.
        received: What came from the socket already.

    Raises:
        UpgradeRefused: It failed.
        trio.ClosedResourceError: This end was closed meanwhile.
    """
    plaintext = engine.feed(received) if received else b""
    while True:
        unsent = memoryview(engine.take())
        while unsent:
            try:
                unsent = unsent[raw.send(unsent) :]
            except BlockingIOError:
                await wait_writable(raw)
            except OSError as error:
                raise closed_in_handshake(engine, f"was lost ({error})") from error
        if engine.error is not None:
            raise UpgradeRefused(TLS_FAILED, f"TLS handshake: {engine.why_failed()}")
        if engine.handshaken:
            return TlsSocket(raw, engine, plaintext)
        await wait_readable(raw)
        try:
            data = raw.recv(READ_BYTES)
        except BlockingIOError:
            continue
        except OSError as error:
            raise closed_in_handshake(engine, f"was lost ({error})") from error
        if not data:
            raise closed_in_handshake(engine, "closed")
        plaintext = engine.feed(data)
