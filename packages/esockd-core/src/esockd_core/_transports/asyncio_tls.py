"""TLS between a transport of asyncio or uvloop and a connection that knows nothing of it.

To the real transport this is the protocol, to the connection it is the transport.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, cast

from esockd_core._connection import TLS_CUT_SHORT, TLS_FAILED
from esockd_core._peer_certificate import describe_tls
from esockd_core._tls import TlsEngine
from esockd_core._upgrade import UpgradeRefused, closed_in_handshake

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions
    from esockd_core._transports.asyncio import AsyncioConnection


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One TLS connection.

    Plaintext that arrives while the connection has paused reading is held back: at most what one read of the real
    transport brought, which is paused too. The handshake goes on all the same.

    Args:
        real: What carries the ciphertext.
        connection: What the plaintext is for.
        engine: A fresh one.
        on_shaken: Called once, with None after the handshake or with why it failed.
    """

    __slots__ = (
        "_connection",
        "_engine",
        "_eof_told",
        "_eof_written",
        "_error",
        "_held",
        "_info",
        "_keeps_much",
        "_on_shaken",
        "_paused",
        "real",
    )

    def __init__(
        self,
        real: asyncio.Transport,
        connection: AsyncioConnection,
        engine: TlsEngine,
        on_shaken: Callable[[UpgradeRefused | None], None],
    ) -> None:
        self.real = real
        self._connection = connection
        self._engine = engine
        self._on_shaken: Callable[[UpgradeRefused | None], None] | None = on_shaken
        self._held: bytes | None = None
        self._info: TlsInfo | None = None
        self._error: Exception | None = None
        self._paused = False
        self._keeps_much = False
        self._eof_told = False
        self._eof_written = False

    def begin(self, unread: bytes) -> None:
        """Take over the real transport, whose bytes so far are `unread`."""
        self.real.set_protocol(self)
        self._send(self._engine.take())  # of a client, who speaks first
        if unread:
            self.data_received(unread)

    @property
    def info(self) -> TlsInfo | None:
        """What is known of the connection, None before the handshake is done."""
        if self._info is None and self._engine.handshaken:
            self._info = describe_tls(self._engine.tls)
        return self._info

    # From the real transport

    def data_received(self, data: bytes) -> None:
        """Ciphertext came."""
        engine = self._engine
        plaintext = engine.feed(data)
        if engine.outgoing.pending:
            self._send(engine.take())
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
        if engine.peer_finished:
            return self._connection.state == "open"
        if self._connection.state == "open":
            self._error = ConnectionAbortedError(TLS_CUT_SHORT)
        return False

    def pause_writing(self) -> None:
        """Much ciphertext waits for the peer."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The peer took it."""
        if not self._keeps_much:
            self._connection.resume_writing()

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
            self._shaken(UpgradeRefused(TLS_FAILED, f"TLS handshake: {self._engine.why_failed()}"))
            return False
        if not self._engine.handshaken:
            return False
        self._shaken(None)
        if self._keeps_much:
            self._keeps_much = False
            self._connection.resume_writing()
        if self._paused and not self.real.is_closing():
            self.real.pause_reading()
        return not self.real.is_closing()

    def _shaken(self, refused: UpgradeRefused | None) -> None:
        on_shaken, self._on_shaken = self._on_shaken, None
        if on_shaken is not None:
            on_shaken(refused)

    def _look_at_end(self) -> None:
        if self._held is not None or self._eof_told:
            return
        self._eof_told = True
        if self._engine.error is not None:
            self._error = self._engine.error
            self.real.close()
        elif not self._connection.eof_received():
            self.close()

    def _deliver_held(self) -> None:
        if self._paused or self._held is None:
            return
        held, self._held = self._held, None
        self._connection.data_received(held)
        if self._engine.peer_finished or self._engine.error is not None:
            self._look_at_end()
        if self.is_reading() and not self.real.is_closing():
            self.real.resume_reading()

    def _send(self, ciphertext: bytes) -> None:
        if ciphertext and not self._eof_written and not self.real.is_closing():
            self.real.write(ciphertext)

    # To the connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; before the handshake is done, keep it for later."""
        try:
            ciphertext = self._engine.write(bytes(data))
        except ssl.SSLError as error:
            self._error = self._error or error
            self.real.close()
            return
        if ciphertext:
            self._send(ciphertext)
        elif not self._keeps_much and self._engine.unwritten_bytes > self.real.get_write_buffer_limits()[1]:
            self._keeps_much = True
            self._connection.pause_writing()

    def write_eof(self) -> None:
        """Say that no more will be sent, in TLS (close_notify) and in TCP."""
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

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another one have the plaintext."""
        self._connection = cast("AsyncioConnection", protocol)  # it stands in for the connection

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once everything is sent."""
        return self.real.is_closing()

    def pause_reading(self) -> None:
        """Deliver nothing until reading resumes."""
        self._paused = True
        if self._on_shaken is None and not self.real.is_closing():
            self.real.pause_reading()

    def resume_reading(self) -> None:
        """Deliver what was held back, then what comes."""
        self._paused = False
        if self._held is not None:
            asyncio.get_running_loop().call_soon(self._deliver_held)
        elif not self.real.is_closing():
            self.real.resume_reading()

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


async def shake_hands(
    connection: AsyncioConnection, real: asyncio.Transport, engine: TlsEngine, unread: bytes
) -> UpgradeRefused | None:
    """Put TLS under a connection that exists already; give why its handshake failed, or None."""
    shaken: asyncio.Future[UpgradeRefused | None] = asyncio.get_running_loop().create_future()

    def note(refused: UpgradeRefused | None) -> None:
        if not shaken.done():
            shaken.set_result(refused)

    layer = TlsTransport(real, connection, engine, note)
    connection.use_transport(layer)
    connection.resume_reading()
    layer.begin(unread)
    try:
        return await shaken
    except BaseException:
        connection.abort()
        raise


def begin_tls(
    connection: AsyncioConnection,
    real: asyncio.Transport,
    options: TlsOptions,
    unread: bytes,
    *,
    service: Service,
    on_shaken: Callable[[UpgradeRefused | None], None],
) -> TlsTransport:
    """Put TLS under a connection that its handler uses already.

    Args:
        connection: What goes on with TLS.
        real: Its transport.
        options: How to speak TLS.
        unread: What came from it already.
        service: Whose deadline holds for the handshake.
        on_shaken: Called once, with None after the handshake or with why it failed: then the connection is in the clear
            again, to be closed.
    """

    def shaken(refused: UpgradeRefused | None) -> None:
        if refused is None:
            service.upgrading.handshake_done(connection, service.loop.time())
        else:
            service.upgrading.handshakes.pop(connection, None)
            connection.use_transport(real)
            real.set_protocol(connection)
        on_shaken(refused)

    layer = TlsTransport(real, connection, TlsEngine(options.context), shaken)
    service.upgrading.handshakes[connection] = service.loop.time()
    connection.use_transport(layer)
    layer.begin(unread)
    return layer
