"""TLS between a transport of asyncio or uvloop and a connection that knows nothing of it.

To the real transport this is the protocol, to the connection it is the transport.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from esockd_core._connection.entrance import EntranceRefused, closed_in_handshake
from esockd_core._connection.face import TLS_CUT_SHORT
from esockd_core._stats.reasons import TLS_FAILED
from esockd_core._tls.facts import describe_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection.face import State
    from esockd_core._tls.engine import TlsEngine
    from esockd_core._tls.facts import TlsInfo


class Plaintext(Protocol):
    """The connection that the plaintext is for, as far as TLS asks it."""

    @property
    def state(self) -> State:
        """See `Connection`."""
        ...

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`, here and below."""

    def eof_received(self) -> bool: ...

    def outlives_eof(self) -> bool:
        """Whether the socket stays open though the peer finished sending."""
        ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def tls_broke(self, error: ssl.SSLError, *, is_hostile: bool) -> None:
        """End the connection because of bytes that are not valid TLS; see `AsyncioStream.tls_broke`."""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One TLS connection.

    Plaintext that arrives while the connection has paused reading is held back. It is at most one read of the real
    transport, which is paused too. The handshake continues nevertheless. Records that need an answer (TLS 1.3
    KeyUpdate) are also read, unless too many answers wait for the peer.

    Args:
        real: The transport of the ciphertext.
        connection: The connection that gets the plaintext.
        engine: A fresh one.
        on_shaken: Called once, with None after the handshake or with why it failed.
        sent_bytes: Bytes written to the real transport before.

    Attributes:
        real: The transport of the ciphertext.
        sealed_bytes: All bytes written to the real transport so far.
    """

    __slots__ = (
        "_connection",
        "_engine",
        "_eof_told",
        "_eof_wanted",
        "_eof_written",
        "_error",
        "_held",
        "_info",
        "_keeps_much",
        "_on_shaken",
        "_owes_answers",
        "_paused",
        "_reads",
        "_real_is_full",
        "_told_full",
        "real",
        "sealed_bytes",
    )

    def __init__(
        self,
        real: asyncio.Transport,
        connection: Plaintext,
        engine: TlsEngine,
        on_shaken: Callable[[EntranceRefused | None], None],
        sent_bytes: int = 0,
    ) -> None:
        self.real = real
        self.sealed_bytes = sent_bytes
        self._connection = connection
        self._engine = engine
        self._on_shaken: Callable[[EntranceRefused | None], None] | None = on_shaken
        self._held: bytes | None = None
        self._info: TlsInfo | None = None
        self._error: Exception | None = None
        self._paused = False  # the connection reads no plaintext
        self._owes_answers = False  # the peer takes no answers, and is not read from
        self._keeps_much = False  # plaintext waits for the end of the handshake
        self._reads = True
        self._real_is_full = False
        self._told_full = False
        self._eof_told = False
        self._eof_wanted = False
        self._eof_written = False

    def begin(self, unread: bytes) -> None:
        """Take over the real transport. `unread` are the bytes that it has read already."""
        self._real_is_full = self._told_full = (
            self.real.get_write_buffer_size() > self.real.get_write_buffer_limits()[1]
        )
        self.real.set_protocol(self)
        self._send(self._engine.take())  # a client speaks first
        if unread:
            self.data_received(unread)

    @property
    def info(self) -> TlsInfo | None:
        """The facts about the connection's TLS; None before the handshake is done."""
        if self._info is None and self._engine.handshaken:
            self._info = describe_tls(self._engine.tls)
        return self._info

    @property
    def holds_input(self) -> bool:
        """Whether plaintext waits for the connection to read again."""
        return self._held is not None

    # From the real transport

    def data_received(self, data: bytes) -> None:
        """Ciphertext came."""
        engine = self._engine
        plaintext = engine.feed(data)
        if engine.outgoing.pending:
            self._send(engine.take())
            if self._real_is_full and self._on_shaken is None:
                self._owes_answers = True
                self._set_real_reading()
        if self._on_shaken is not None and not self._look_at_handshake():
            return
        if plaintext:
            if self._paused or self._held is not None:
                self._held = (self._held or b"") + plaintext
            else:
                self._connection.data_received(plaintext)
        if engine.peer_finished or engine.error is not None:
            self._look_at_end()

    def eof_received(self) -> bool:
        """The peer finished sending, with TLS or without."""
        engine = self._engine
        if self._on_shaken is not None:
            self._shaken(closed_in_handshake(engine, "closed"))
            return False
        if engine.finished and not engine.peer_finished:
            engine.peer_finished = True  # it need not answer our own farewell
            self._look_at_end()
        if not engine.peer_finished and self._connection.state == "open":
            self._error = ConnectionAbortedError(TLS_CUT_SHORT)
            return False
        return self._connection.outlives_eof()

    def pause_writing(self) -> None:
        """Much ciphertext waits for the peer."""
        self._real_is_full = True
        self._tell_full()

    def resume_writing(self) -> None:
        """The peer took it."""
        self._real_is_full = False
        if self._owes_answers:
            self._owes_answers = False
            self._set_real_reading()
        self._tell_full()

    def connection_lost(self, exc: Exception | None) -> None:
        """The real transport is closed."""
        if self._on_shaken is not None:
            self._shaken(closed_in_handshake(self._engine, "was lost" if exc is None else f"was lost ({exc})"))
        if self._held is not None:
            held, self._held = self._held, None
            self._connection.data_received(held)
        self._connection.connection_lost(exc or self._error)
        del self._connection  # or only the garbage collector would free the two, and OpenSSL's 20 KB with them

    # Within

    def _look_at_handshake(self) -> bool:
        if self._engine.error is not None:
            self._shaken(EntranceRefused(TLS_FAILED, f"TLS handshake: {self._engine.why_failed()}"))
            return False
        if not self._engine.handshaken:
            return False
        if self._engine.unwritten_bytes:  # the last message was the peer's, as in a session that TLS 1.2 resumes
            self._send(self._engine.take())
        self._keeps_much = False
        self._shaken(None)
        self._tell_full()
        if self._eof_wanted:
            self.write_eof()
        self._set_real_reading()
        return not self.real.is_closing()

    def _shaken(self, refused: EntranceRefused | None) -> None:
        on_shaken, self._on_shaken = self._on_shaken, None
        if on_shaken is not None:
            on_shaken(refused)

    def _look_at_end(self) -> None:
        if self._held is not None or self._eof_told:
            return
        self._eof_told = True
        error = self._engine.error
        if error is not None:
            self._connection.tls_broke(error, is_hostile=self._engine.is_flooded)
        elif not self._connection.eof_received():
            self.close()

    def _deliver_held(self) -> None:
        if self._paused or self._held is None:
            return
        held, self._held = self._held, None
        self._connection.data_received(held)
        if self._engine.peer_finished or self._engine.error is not None:
            self._look_at_end()
        self._set_real_reading()

    def _set_real_reading(self) -> None:
        if self.real.is_closing():
            return
        reads = self._on_shaken is not None or not (self._paused or self._held is not None or self._owes_answers)
        if reads is not self._reads:
            self._reads = reads
            (self.real.resume_reading if reads else self.real.pause_reading)()

    def _tell_full(self) -> None:
        is_full = self._real_is_full or self._keeps_much
        if is_full is not self._told_full:
            self._told_full = is_full
            if is_full:
                self._connection.pause_writing()
            else:
                self._connection.resume_writing()

    def _send(self, ciphertext: bytes) -> None:
        if ciphertext and not self._eof_written and not self.real.is_closing():
            self.sealed_bytes += len(ciphertext)
            self.real.write(ciphertext)

    # To the connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; before the handshake is done, keep it for later."""
        try:
            ciphertext = self._engine.write(bytes(data))
        except ssl.SSLError as error:
            self._connection.tls_broke(error, is_hostile=False)
            return
        if ciphertext:
            self._send(ciphertext)
        elif not self._keeps_much and self._engine.unwritten_bytes > self.real.get_write_buffer_limits()[1]:
            self._keeps_much = True
            self._tell_full()

    def write_eof(self) -> None:
        """Say that no more will be sent, in TLS (close_notify) and in TCP; during the handshake, once it is done."""
        if self._on_shaken is not None and self._connection.state == "open":
            self._eof_wanted = True
            return
        self._send(self._engine.finish())
        if not self._eof_written:
            self._eof_written = True
            self.real.write_eof()

    def can_write_eof(self) -> bool:
        """Always: the other direction stays open."""
        return True

    def close(self) -> None:
        """Send what waits, say goodbye in TLS, and close."""
        self._send(self._engine.finish())
        self.real.close()

    def abort(self) -> None:
        """Close at once."""
        self.real.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once everything is sent."""
        return self.real.is_closing()

    def pause_reading(self) -> None:
        """Deliver nothing until reading resumes."""
        self._paused = True
        self._set_real_reading()

    def resume_reading(self) -> None:
        """Deliver what was held back, then what comes."""
        self._paused = False
        if self._held is not None:
            asyncio.get_running_loop().call_soon(self._deliver_held)
        else:
            self._set_real_reading()

    def is_reading(self) -> bool:
        """Whether reading is not paused."""
        return not self._paused

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the peer."""
        return self.real.get_write_buffer_size() + self._engine.unwritten_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As for the real transport."""
        self.real.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As for the real transport, which knows no "ssl_object"."""
        return self._engine.tls if name == "ssl_object" else self.real.get_extra_info(name, default)
