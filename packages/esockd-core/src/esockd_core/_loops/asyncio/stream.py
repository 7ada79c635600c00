"""Connections on asyncio and uvloop: an `asyncio.Protocol` that is the connection itself.

A connection has one buffer slot and one waiter, and neither a queue nor an event. So an idle connection is the
transport, this object and, for a coroutine handler, its task. Handlers run in native tasks, which bytes resume where
they arrive (see `resume`). Bytes leave the slot only when the receiving task runs, so a receive that is cancelled at
any moment loses nothing.

The distribution esockd-speedups does the usual case of `data_received`, `_receive`, `send` and `send_nowait` in C, with
`resume` and the base's `receive`. A change of what they do is to be made there, too; a test tells when they have
changed.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final
from weakref import ref

from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, WouldBlock

from esockd_core._connection.face import READ_BYTES
from esockd_core._connection.names import as_bytes, name_of
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._connection.stream import StreamBase
from esockd_core._loops.asyncio.cancellation import current_task, scoped_tasks
from esockd_core._loops.asyncio.handled import HandledConnection
from esockd_core._loops.asyncio.resuming import resume, wake
from esockd_core._loops.asyncio.tls import TlsTransport
from esockd_core._stats.reasons import RESET
from esockd_core._tls.engine import TlsEngine

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.entrance import EntranceRefused
    from esockd_core._connection.site import Site
    from esockd_core._loops.asyncio.side import AsyncioSide
    from esockd_core._options.listener import PeerName
    from esockd_core._options.tls import TlsOptions
    from esockd_core._tls.facts import TlsInfo

LOST: Final = "the connection is lost"
HALF_A_TURN: Final = YIELD_EVERY // 2  # of a handler that bytes resume: its next turn may come in the same pass
DEFAULT_WRITE_BUFFER_BYTES: Final = 65_536  # of asyncio and uvloop: setting it again would cost a call


class AsyncioStream(  # pyright: ignore[reportIncompatibleMethodOverride]
    StreamBase, HandledConnection, asyncio.Protocol
):
    """A connection on asyncio or uvloop."""

    __slots__ = ("_reading_paused", "_senders", "_side", "_task", "_transport")

    _transport: asyncio.Transport

    def __init__(self, site: Site, driver: AnyDriver, side: AsyncioSide) -> None:
        StreamBase.__init__(self, site, driver)  # half the cost of super(), for each connection
        self._side = side
        self._task: asyncio.Task[object] | None = None
        self._senders: set[asyncio.Future[None]] | None = None
        self._reading_paused = False

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream has no other kind
        self.driver.start(self)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._closing:  # read only so that the kernel does not answer it with a reset
            return
        receiver = self._receiver
        if receiver is None or self._chunk is not None:
            self.driver.data_received(self, data)
        else:  # what a coroutine's driver does, without its call
            self._chunk = data
            if len(data) <= READ_BYTES:
                resume(receiver, self._side)
            else:  # uvloop may go on reading
                wake(receiver)

    def eof_received(self) -> bool:
        self._eof = True
        if self._closing:
            return self.outlives_eof()
        self.driver.eof_received(self)
        return not self._transport.is_closing()  # which stays open as long as anything waits for the peer

    def outlives_eof(self) -> bool:
        """Whether the socket stays open though the peer finished sending."""
        # What waits for the peer keeps the socket open, and within reach of a reset.
        return not self._closing or self._transport.get_write_buffer_size() > 0 or self in self._site.watch.cut

    def pause_writing(self) -> None:
        self._pause_writing(paused=True)

    def resume_writing(self) -> None:
        self._pause_writing(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = error = self._error or exc
        broke = error is not None and not self._closing
        self._lost = self._closing = True
        if self._write_paused:
            self._write_paused = False
            self._wake_senders()
        watch = self._site.watch
        watched = watch.sending or watch.closing or watch.farewells or watch.upstreams
        if watched or watch.receiving or watch.receive_timeouts:
            watch.socket_lost(self)
        if self._receiver is not None:
            self._wake_receiver()
        self.driver.lost(self, broke)

    def bound_buffers(self) -> None:
        """Bound the size of a read, and the bytes that wait for the peer before `send` waits."""
        site, transport = self._site, self._transport
        if self._side.caps_reads:  # asyncio's own 256 KiB cost an mmap(2) for each
            transport.max_size = site.read_bytes  # type: ignore[attr-defined]
        if site.options.write_buffer_bytes != DEFAULT_WRITE_BUFFER_BYTES:
            transport.set_write_buffer_limits(site.options.write_buffer_bytes)

    # Receiving

    async def _receive(self, max_bytes: int = sys.maxsize, end: type[Exception] = StopAsyncIteration) -> bytes:
        # What the base does, with its calls of the methods below written out: they are a twentieth of an echo.
        if self._chunk is not None:
            if self._receiver is not None:
                raise self._cannot_receive()
            if self._unyielded >= YIELD_EVERY or ref(current_task(self._side.loop)) in scoped_tasks:
                await self._checkpoint()
            else:
                self._unyielded += 1
        while self._chunk is None:
            if self._receiver is not None or self._closing or not self.driver.receives:
                raise self._cannot_receive()
            if self._eof:
                raise end
            if self.draining and await self._end_for_drain():
                continue
            self._receiver = waiter = self._side.loop.create_future()
            try:
                await waiter
            finally:
                self._receiver = None
            self._unyielded = HALF_A_TURN
        chunk = self._chunk
        if self._more is None and not self._reading_paused and type(chunk) is bytes and len(chunk) <= max_bytes:
            self._chunk = None
            return chunk
        return self._take_kept(max_bytes)

    __anext__ = _receive

    def _has_input(self) -> bool:
        return self._chunk is not None

    def _take(self, max_bytes: int) -> bytes | None:
        return None if self._chunk is None else self._take_kept(max_bytes)

    def _take_kept(self, max_bytes: int) -> bytes:
        data = self._take_buffered(max_bytes)
        if self._reading_paused and self._buffered_bytes() < self._site.options.read_buffer_bytes:
            self._resume_input()
        return data

    def _fill(self) -> bool:
        self._resume_input()  # a message may be larger than what is held for a handler that does not read
        return False

    def _cut_off(self) -> None:
        if self._reading_paused and self._buffered_bytes() < self._site.options.read_buffer_bytes:
            self._resume_input()

    def has_unread_input(self) -> bool:
        layer = self._tls_layer()
        return (layer is not None and layer.holds_input) or super().has_unread_input()

    def _input_waiter(self) -> asyncio.Future[None]:
        return self._side.loop.create_future()

    def deliver_buffered(self) -> None:
        if self._chunk is not None and not (self.driver.receives or self._reading_paused or self._closing):
            self.driver.data_received(self, self._take_all_buffered())

    def _pause_input(self) -> None:
        if not (self._reading_paused or self._eof or self._lost):  # resumed after the end, the loop would tell it again
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_input(self) -> None:
        if self._reading_paused and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()
            self.driver.reading_resumed(self)

    _read_on = _resume_input

    # Sending

    async def send(self, item: bytes) -> None:
        # As above.
        if self._unyielded >= YIELD_EVERY or self._write_paused or ref(current_task(self._side.loop)) in scoped_tasks:
            await self._checkpoint()
            if self._write_paused:
                await self._wait_writable()
        else:
            self._unyielded += 1
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if type(item) is not bytes:
            item = as_bytes(item)
        transport = self._transport
        if transport.is_closing():
            raise BrokenResourceError(LOST)
        self.bytes_out += len(item)
        transport.write(item)
        if self._write_paused:
            await self._wait_writable()

    def send_nowait(self, data: bytes) -> None:
        # As above.
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if type(data) is not bytes:
            data = as_bytes(data)
        transport = self._transport
        if self._side.caps_reads and transport.is_closing():
            raise BrokenResourceError(LOST)
        if self._write_paused and self.unsent_bytes() + len(data) > self._site.options.write_limit_bytes:
            raise WouldBlock
        self.bytes_out += len(data)
        transport.write(data)

    def _write(self, data: bytes) -> None:
        # As above.
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if type(data) is not bytes:
            data = as_bytes(data)
        transport = self._transport
        if transport.is_closing():
            raise BrokenResourceError(LOST)
        self.bytes_out += len(data)
        transport.write(data)

    def _hand_over(self, data: bytes) -> None:
        transport = self._transport
        if transport.is_closing():  # the loop has seen that the peer is gone, and is about to tell
            raise BrokenResourceError(LOST)
        transport.write(data)

    def _finish_sending(self) -> None:
        if not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError as error:  # the peer reset the connection, and the loop has not noticed yet
                self._error = self._error or error
                self._transport.abort()

    async def _wait_room(self) -> None:
        sender = self._side.loop.create_future()
        if self._senders is None:
            self._senders = set()
        self._senders.add(sender)
        try:
            await sender
        finally:
            if self._senders is not None:  # or cancelled sends would pile up
                self._senders.discard(sender)

    def _wake_senders(self) -> None:
        senders, self._senders = self._senders, None
        for sender in senders or ():
            if not sender.done():
                sender.set_result(None)

    # TLS

    def _tls_layer(self) -> TlsTransport | None:
        transport = self._transport
        return transport if isinstance(transport, TlsTransport) else None

    def _has_tls(self) -> bool:
        return self._tls_layer() is not None

    def _own_tls(self) -> TlsInfo | None:
        layer = self._tls_layer()
        return None if layer is None else layer.info

    def put_tls_under(
        self, engine: TlsEngine, unread: bytes, on_shaken: Callable[[EntranceRefused | None], None]
    ) -> None:
        """Continue over TLS.

        Args:
            engine: A fresh one.
            unread: Bytes that came from the transport already.
            on_shaken: Called once: with None after the handshake, or with the reason for its failure.
        """
        self._transport = layer = TlsTransport(self._transport, self, engine, on_shaken, self.bytes_out)
        layer.begin(unread)

    def take_off_tls(self) -> None:
        """Remove the TLS layer, so that bytes go to the socket as they are."""
        layer = self._tls_layer()
        if layer is not None:
            self._transport = layer.real
            self._transport.set_protocol(self)

    def tls_broke(self, error: ssl.SSLError, *, is_hostile: bool) -> None:
        """End the connection because of bytes that are not valid TLS, after the alert that says so."""
        self._error = self._error or error
        self.note_reason(RESET)
        if self._closing:
            self.close_socket()
        elif is_hostile:
            self.abort()
        else:
            self._stop_handler_io()
            self._begin_close()

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        self._require_style(receives=True)
        if self._receiver is not None:
            raise BusyResourceError("receiving from")
        shaken: asyncio.Future[EntranceRefused | None] = self._side.loop.create_future()

        def note(refused: EntranceRefused | None) -> None:
            if not shaken.done():
                shaken.set_result(refused)

        self._begin_tls(options, received, note)
        try:
            refused = await shaken
        except BaseException:
            self.abort()
            raise
        if refused is not None:
            raise BrokenResourceError(refused.why)

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        self._require_style(receives=False)
        self._begin_tls(options, received, lambda _: None)

    def _begin_tls(
        self, options: TlsOptions, received: bytes, on_shaken: Callable[[EntranceRefused | None], None]
    ) -> None:
        unread = self._require_plain(options, received) + self._take_all_buffered()
        self._resume_input()
        waiting = self._site.waiting
        waiting.handshakes[self] = self.now()

        def shaken(refused: EntranceRefused | None) -> None:
            if refused is None:
                waiting.handshake_done(self, self.now())
            else:
                waiting.forget(self)
                self.take_off_tls()
                self._tls_refused(refused.why)
            on_shaken(refused)
            if refused is None and not self._closing:
                self.driver.tls_started(self)

        self.put_tls_under(TlsEngine(options.context), unread, shaken)
        layer = self._tls_layer()
        if self._eof and layer is not None:
            layer.eof_received()

    # Ending

    def _begin_close(self) -> None:
        transport = self._transport
        if self._eof and not transport.get_write_buffer_size():
            transport.close()
            return
        if not self._eof_sent:
            self._eof_sent = True
            self._finish_sending()
        self._read_on()
        if not self._lost:
            self._site.watch.closing[self] = (-1, self.now())

    def _reset_at_close(self) -> None:
        if not self._transport.is_closing():  # uvloop may have closed the descriptor, and another have it already
            super()._reset_at_close()

    def close_socket(self) -> None:
        if not self._lost:
            self._closing = True
            self._transport.abort()

    # Looking at it

    # Both are asked of the transport, also of a closed one: uvloop has them in C, where they take 160 bytes less.

    @property
    def socket_peername(self) -> PeerName:  # type: ignore[override]
        return name_of(self._transport.get_extra_info("peername"))

    @property
    def sockname(self) -> PeerName:  # type: ignore[override]
        return name_of(self._transport.get_extra_info("sockname"))

    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def wire_bytes_out(self) -> int:
        layer = self._tls_layer()
        return self.bytes_out if layer is None else layer.sealed_bytes

    def _raw_socket(self) -> socket.socket:
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is None:  # uvloop
            raise ClosedResourceError
        return raw
