"""Connections on asyncio and uvloop: an `asyncio.Protocol` that is the connection itself.

One buffer slot, one waiter, no queue, no event: an idle connection is the transport, this object and, for a coroutine
handler, its task. Handlers run in native tasks. Bytes leave the slot only when the receiving task runs, so a receive
that is cancelled at any moment loses nothing.
"""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

import anyio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from esockd_core._carried import YIELD_EVERY, Carried
from esockd_core._connection import KILLED, NORMAL, SHUTDOWN, as_bytes, bad_max_bytes, name_of
from esockd_core._transports.cancellation import is_in_cancel_scope, is_shielded

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._relay import Forwarding
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions
    from esockd_core._upgrade import UpgradeRefused

DEFAULT_WRITE_BUFFER_BYTES: Final = 65_536  # of asyncio and uvloop: setting it again would cost a call


class AsyncioConnection(Carried, asyncio.Protocol):
    """A connection served by a coroutine handler."""

    __slots__ = ("_chunk", "_more", "_reading_paused", "_receiver", "_senders", "_task", "_transport", "_write_paused")

    _transport: asyncio.Transport
    _task: asyncio.Task[object] | None

    def __init__(self, service: Service) -> None:
        Carried.__init__(self, service)  # half the cost of super(), for each connection
        self._chunk: bytes | bytearray | memoryview | None = None
        self._more: bytearray | None = None
        self._receiver: asyncio.Future[None] | None = None
        self._senders: list[asyncio.Future[None]] | None = None
        self._task = None
        self._reading_paused = False
        self._write_paused = False

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        service = self._service
        self._transport = transport  # type: ignore[assignment] # a stream has no other kind
        self.socket_peername = name_of(transport.get_extra_info("peername"))
        if not service.admission.admits(self):
            self._refuse(service.options.refuse_with)
            return
        if service.sets_socket_options:
            with suppress(OSError):  # the peer may be gone already
                service.options.tcp.apply_to_connection(self._raw_socket())
        self._bound_buffers()
        service.started(self)
        self._start()

    def _bound_buffers(self) -> None:
        service, transport = self._service, self._transport
        if service.caps_reads:  # asyncio's own 256 KiB cost an mmap(2) for each
            transport.max_size = service.read_bytes  # type: ignore[attr-defined]
        if service.options.write_buffer_bytes != DEFAULT_WRITE_BUFFER_BYTES:
            transport.set_write_buffer_limits(service.options.write_buffer_bytes)

    def _start(self) -> None:
        service = self._service
        try:
            self._task = task = service.new_task(service.serve(self))
        except Exception as error:  # noqa: BLE001 - it cannot be called with a connection, or is no coroutine function
            self.close_nowait(self._reason_for(error))
        else:
            task.add_done_callback(self._handler_done)
            service.handler_due()

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._closing:
            return  # read only so that the kernel does not answer it with a reset
        if self._chunk is None:
            self._chunk = data
            receiver = self._receiver
            if receiver is not None:
                if not receiver.done():
                    receiver.set_result(None)
                return
            buffered = len(data)
        else:
            if self._more is None:
                self._more = bytearray(data)
            else:
                self._more += data
            buffered = len(self._chunk) + len(self._more)
        if buffered >= self._service.options.read_buffer_bytes:
            self.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        if self._closing:
            return False
        self._wake_receiver()
        return True

    def pause_writing(self) -> None:
        self._write_paused = True
        self._service.blocked[self] = (self.unsent_bytes(), self._service.loop.time())

    def resume_writing(self) -> None:
        self._write_paused = False
        self._service.blocked.pop(self, None)
        self._wake_senders()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._closing = True
        self._error = self._error or exc
        service = self._service
        if self._write_paused:
            self._write_paused = False
            service.blocked.pop(self, None)
            self._wake_senders()
        if service.closing:
            service.closing.pop(self, None)
        if service.farewells:
            service.farewells.discard(self)
        if self._receiver is not None:
            self._wake_receiver()
        if self._task is None and self.id:
            service.stopped(self, self._reason or NORMAL)

    def _handler_done(self, task: asyncio.Task[object]) -> None:
        self._task = None
        reason = NORMAL
        if task.cancelled():
            reason = SHUTDOWN if self.draining else KILLED
        elif (error := task.exception()) is not None:
            reason = self._reason_for(error)
        self._handler_ended(reason)

    # Receiving

    async def __anext__(self) -> bytes:
        if self._chunk is not None:
            await self._checkpoint()
        while self._chunk is None:
            if self._eof and not self._closing:
                raise StopAsyncIteration
            if self._receiver is not None or self._closing:
                raise self._cannot_receive()
            self._receiver = receiver = self._service.loop.create_future()
            try:
                await receiver
            finally:
                self._receiver = None
            self._unyielded = 0
        chunk = self._chunk
        if type(chunk) is bytes and self._more is None and not self._reading_paused:
            self._chunk = None  # the quick way of what `_take_all` does
            return chunk
        return self._take_all()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if max_bytes < 1:
            raise bad_max_bytes(max_bytes)
        if self._chunk is not None:
            await self._checkpoint()
        while self._chunk is None:
            if self._eof and not self._closing:
                raise EndOfStream
            if self._receiver is not None or self._closing:
                raise self._cannot_receive()
            self._receiver = receiver = self._service.loop.create_future()
            try:
                await receiver
            finally:
                self._receiver = None
            self._unyielded = 0
        if self._more is None and len(self._chunk) <= max_bytes:
            return self._take_all()
        return self._take(max_bytes)

    def _cannot_receive(self) -> Exception:
        return self._closed_error() if self._receiver is None else BusyResourceError("receiving from")

    def _take_all(self) -> bytes:
        chunk, more = self._chunk, self._more
        self._chunk = self._more = None
        if self._reading_paused:
            self.resume_reading()
        if more is not None:
            return b"".join((cast("bytes", chunk), more))
        return chunk if isinstance(chunk, bytes) else bytes(cast("memoryview", chunk))

    def _take(self, max_bytes: int) -> bytes:
        chunk = cast("bytes", self._chunk)
        if len(chunk) > max_bytes:  # what stays is not copied, or a reader of single bytes would copy it each time
            view = memoryview(chunk)
            taken, self._chunk = bytes(view[:max_bytes]), view[max_bytes:]
        else:
            taken, self._chunk, self._more = bytes(chunk), self._more, None
        if self._reading_paused and self._buffered_bytes() < self._service.options.read_buffer_bytes:
            self.resume_reading()
        return taken

    def _buffered_bytes(self) -> int:
        return sum(len(part) for part in (self._chunk, self._more) if part is not None)

    def _wake_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def pause_reading(self) -> None:
        if not (self._reading_paused or self._eof or self._lost):  # resumed after the end, the loop would tell it again
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()

    # Sending

    async def send(self, item: bytes) -> None:
        if self._unyielded >= YIELD_EVERY or self._write_paused or is_in_cancel_scope(self._service.loop):
            await self._checkpoint()
            await self._wait_writable()  # for what a cancelled send left, or another task's
        self._unyielded += 1
        self._write(item)
        if self._write_paused:
            await self._wait_writable()

    def send_nowait(self, data: bytes) -> None:
        if self._write_paused and not self._closing:
            data = as_bytes(data)
            if self.unsent_bytes() + len(data) > self._service.options.write_limit_bytes:
                raise anyio.WouldBlock
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if type(data) is not bytes:
            data = as_bytes(data)  # the transport may keep what it is given, and its owner may change it
        self.bytes_out += len(data)
        self._transport.write(data)

    def _hand_over(self, data: bytes) -> None:
        self._transport.write(data)

    def _finish_sending(self) -> None:
        if not self._eof_sent and not self._transport.is_closing():
            self._eof_sent = True
            try:
                self._transport.write_eof()
            except OSError as error:  # the peer reset the connection, and the loop has not noticed yet
                self._error = self._error or error
                self._transport.abort()

    async def _wait_writable(self) -> None:
        while self._write_paused:
            sender = self._service.loop.create_future()
            if self._senders is None:
                self._senders = []
            self._senders.append(sender)
            try:
                await sender
            except BaseException:
                if self._senders is not None:  # or cancelled sends would pile up
                    self._senders.remove(sender)
                raise
        if self._lost:
            raise self._closed_error()

    def _wake_senders(self) -> None:
        senders, self._senders = self._senders, None
        for sender in senders or ():
            if not sender.done():
                sender.set_result(None)

    async def _checkpoint(self) -> None:
        # An operation that does not block must still notice cancellation, and give way now and then.
        if self._unyielded < YIELD_EVERY:
            self._unyielded += 1
            if is_in_cancel_scope(self._service.loop):
                await checkpoint_if_cancelled()
        else:
            self._unyielded = 0
            await checkpoint()

    # TLS

    @property
    def tls(self) -> TlsInfo | None:
        return getattr(self._transport, "info", None)

    def use_transport(self, transport: asyncio.Transport) -> None:
        """Go on over this one, which took over the present one."""
        self._transport = transport

    def hand_over_to(self, protocol: asyncio.Protocol) -> bytes:
        """Let another protocol have what comes from now on; give what came before."""
        self._transport.set_protocol(protocol)
        return b"" if self._chunk is None else self._take_all()

    def forwarding(self) -> Forwarding:
        from esockd_core._transports.asyncio_forward import AsyncioForwarding  # noqa: PLC0415 (it is built on this)

        return AsyncioForwarding(self)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        if self._receiver is not None:
            raise BusyResourceError("receiving from")
        shaken: asyncio.Future[UpgradeRefused | None] = self._service.loop.create_future()

        def note(refused: UpgradeRefused | None) -> None:
            if not shaken.done():
                shaken.set_result(refused)
            if refused is not None:
                self._tls_refused(refused.why)

        self._begin_tls(options, received, note)
        try:
            refused = await shaken
        except BaseException:
            self.abort()
            raise
        if refused is not None:
            raise BrokenResourceError(refused.why) from refused

    def _begin_tls(
        self, options: TlsOptions, received: bytes, on_shaken: Callable[[UpgradeRefused | None], None]
    ) -> None:
        from esockd_core._transports.asyncio_tls import TlsTransport, begin_tls  # noqa: PLC0415 (most never do)

        if self._closing or self._eof_sent:
            raise self._closed_error()
        if isinstance(self._transport, TlsTransport):
            raise RuntimeError("the connection has TLS already")  # noqa: TRY004 (it is no matter of types)
        unread = b"".join((received, self._chunk or b"", self._more or b""))
        self._chunk = self._more = None
        self.resume_reading()
        layer = begin_tls(self, self._transport, options, unread, service=self._service, on_shaken=on_shaken)
        if self._eof:
            layer.eof_received()

    # Ending

    def _begin_close(self) -> None:
        self._chunk = self._more = None
        if self._receiver is not None:
            self._wake_receiver()
        transport = self._transport
        unsent = transport.get_write_buffer_size()
        if self._eof:
            transport.close()
            if not unsent:
                return
        else:
            self._finish_sending()
            self.resume_reading()
        if not self._lost:
            self._service.closing[self] = (unsent, self._service.loop.time())

    def _reset_at_close(self) -> None:
        if not self._transport.is_closing():  # uvloop may have closed the descriptor, and another have it already
            super()._reset_at_close()

    def abort_socket(self) -> None:
        if not self._lost:
            self._closing = True
            self._transport.abort()

    def cancel_handler(self, reason: str) -> None:
        if self._task is not None:
            self._reason = self._reason or reason
            if self._lost or not is_shielded(self._task):
                self._task.cancel()

    # Looking at it

    @property
    def sockname(self) -> PeerName:  # type: ignore[override]
        return name_of(self._transport.get_extra_info("sockname"))

    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def handler_stack(self) -> str:
        text = io.StringIO()
        if self._task is not None:
            self._task.print_stack(file=text)
        return text.getvalue()

    def _raw_socket(self) -> socket.socket:
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is None:  # uvloop
            raise ClosedResourceError
        return raw
