"""Connections on trio: a non-blocking socket, waited for with trio's own primitives.

A read that came up short emptied the kernel's buffer, so the next one waits first instead of asking in vain. What a
send could not hand to the kernel at once is kept and flushed by a task of its own: a cancelled send loses nothing.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

import trio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream, WouldBlock
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, notify_closing, wait_readable, wait_writable

from esockd_core._accept import AcceptLoop
from esockd_core._connection import (
    ABORTED,
    KILLED,
    MAX_FAREWELLS,
    NORMAL,
    READ_BYTES,
    RESET,
    SHUTDOWN,
    Carried,
    as_bytes,
    bad_max_bytes,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esockd_core._connection import State, StreamConnection
    from esockd_core._handler import CallbackHandler
    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions

READY_BATCH: Final = 256  # sockets one look at the private epoll may report
YIELD_EVERY: Final = 32  # operations that did not block, before the other connections get their turn
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with timeout 0, socket(7)


class TrioConnection(Carried):
    """A connection served by a coroutine handler."""

    __slots__ = (
        "_closing",
        "_draining_event",
        "_eof",
        "_eof_sent",
        "_error",
        "_flushed",
        "_flushing",
        "_handler_running",
        "_lost",
        "_may_be_readable",
        "_nursery",
        "_reason",
        "_receiving",
        "_scope",
        "_service",
        "_socket",
        "_sockname",
        "_task",
        "_unsent",
        "_unyielded",
        "bytes_in",
        "bytes_out",
        "counted_source",
        "draining",
        "id",
        "moved_at",
        "moved_bytes",
        "opened_at",
        "socket_peername",
    )

    def __init__(self, service: Service, nursery: trio.Nursery, accepted: socket.socket) -> None:
        self._service = service
        self._nursery = nursery
        self._socket = accepted
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._sockname: PeerName | None = None  # of a closed socket, which has no name any more
        self._unsent = bytearray()
        self._flushed: trio.Event | None = None
        self._draining_event: trio.Event | None = None
        self._error: Exception | None = None
        self._reason: str | None = None
        self._handler_running = False
        self._flushing = False
        self._receiving = False
        self._may_be_readable = False
        self._eof = False
        self._eof_sent = False
        self._closing = False
        self._lost = False
        self._unyielded = 0
        self.id = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.counted_source = None
        self.moved_bytes = -1  # not looked at yet: the first look by `sweep_all` starts its idle time
        self.moved_at = 0.0
        self.draining = False
        try:
            self.socket_peername = name_of(accepted.getpeername())
        except OSError:  # gone already
            self.socket_peername = ""

    # From the acceptor

    def admit_and_start(self) -> None:
        """Judge the peer; serve it or turn it away."""
        service = self._service
        if not service.admission.admits(self):
            self._refuse(service.options.refuse_with)
            return
        service.started(self)
        if service.sets_socket_options:
            with suppress(OSError):  # the peer may be gone already
                service.options.tcp.apply_to_connection(self._socket)
        if not self._lost:  # the hook that was told of its start may have aborted it
            self._start()

    def _start(self) -> None:
        self._handler_running = True
        self._nursery.start_soon(self._run_handler)

    def _refuse(self, how: str | bytes) -> None:
        if isinstance(how, bytes) and len(self._service.farewells) < MAX_FAREWELLS:
            self._service.farewells.add(self)
            with suppress(BrokenResourceError):  # the peer may be gone already
                self._write(how)
            self.close_nowait()
            return
        if how == "rst":
            with suppress(OSError):  # the peer may be gone already
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self.abort_socket()

    async def _run_handler(self) -> None:
        self._task = trio.lowlevel.current_task()
        reason = NORMAL
        try:
            with self._scope:
                await self._service.serve(self)
            if self._scope.cancelled_caught:
                reason = SHUTDOWN if self.draining else KILLED
        except trio.Cancelled:
            reason = SHUTDOWN
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises ends its own connection only
            reason = self._reason_for(error)
        except BaseExceptionGroup as group:  # of a task group in the handler that was cancelled and failed as well
            errors, others = group.split(Exception)
            if errors is not None:
                reason = self._reason_for(errors)
            if others is not None:
                raise others from None
        finally:
            self._task = None
            self._handler_running = False
            if self._lost:
                self._service.stopped(self, self._reason or reason)
            else:
                self.close_nowait(reason)

    # Receiving

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        if max_bytes < 1:
            raise bad_max_bytes(max_bytes)
        if self._receiving:
            raise BusyResourceError("receiving from")
        if self._closing:
            raise self._closed_error()
        self._receiving = True
        try:
            await self._checkpoint()
            while True:
                if self._eof:
                    raise EndOfStream
                if not self._may_be_readable:
                    await wait_readable(self._socket)
                    if self._closing:  # by another task, between the wake-up and now
                        raise self._closed_error()
                    self._may_be_readable = True
                try:
                    data = self._socket.recv(max_bytes)
                except BlockingIOError:
                    self._may_be_readable = False
                    continue
                self._may_be_readable = len(data) == max_bytes
                if data:
                    self.bytes_in += len(data)
                    return data
                self._eof = True
        except trio.ClosedResourceError:
            raise self._closed_error() from None
        except OSError as error:
            self._break(error)
            raise self._closed_error() from error
        finally:
            self._receiving = False

    def pause_reading(self) -> None:
        raise RuntimeError("a coroutine handler pauses reading by not calling receive()")

    resume_reading = pause_reading

    # Sending

    async def send(self, item: bytes) -> None:
        await self._checkpoint()
        await self._wait_writable()  # for what a cancelled send left, or another task's
        self._write(item)
        await self._wait_writable()

    async def _wait_writable(self) -> None:
        while self._is_write_paused():
            if self._flushed is None:
                self._flushed = trio.Event()
            await self._flushed.wait()
        if self._lost:
            raise self._closed_error()

    def _is_write_paused(self) -> bool:
        return len(self._unsent) > self._service.options.write_buffer_bytes

    def send_nowait(self, data: bytes) -> None:
        if self._is_write_paused():
            data = as_bytes(data)
            if len(self._unsent) + len(data) > self._service.options.write_limit_bytes:
                raise WouldBlock
        self._write(data)

    async def send_eof(self) -> None:
        if self._closing:
            raise self._closed_error()
        self._finish_sending()
        await checkpoint()

    def _finish_sending(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            if not self._unsent:
                self._shut_down_writing()

    def _shut_down_writing(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:  # TLS says it in bytes, for which there has to be room
            self._nursery.start_soon(self._shut_down_when_writable)
        except OSError:
            pass  # the peer may be gone already

    async def _shut_down_when_writable(self) -> None:
        with suppress(trio.ClosedResourceError):
            await wait_writable(self._socket)
            self._shut_down_writing()

    # TLS

    @property
    def tls(self) -> TlsInfo | None:
        return getattr(self._socket, "info", None)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        from esockd_core._transports.trio_upgrade import start_tls  # noqa: PLC0415 (most programs never do)

        if self._closing or self._eof_sent:
            raise self._closed_error()
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._receiving = True
        try:
            while self._flushing and not self._lost:  # what was sent in the clear
                self._flushed = self._flushed or trio.Event()
                await self._flushed.wait()
            self._socket = await start_tls(self, self._socket, options.context, received, self._service)
            self._may_be_readable = True
        finally:
            self._receiving = False

    def _write(self, data: bytes) -> None:
        if self._closing or self._eof_sent:
            raise self._closed_error()
        data = as_bytes(data)
        self.bytes_out += len(data)
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._break(error)
                raise self._closed_error() from error
            if sent == len(data):
                return
            self._unsent += memoryview(data)[sent:]
        else:
            self._unsent += data
        if not self._flushing:
            self._flushing = True
            self._service.blocked[self] = (len(self._unsent), trio.current_time())
            self._nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        try:
            while self._unsent:
                with suppress(trio.ClosedResourceError):  # meant for a receiver, unless the socket is lost
                    await wait_writable(self._socket)
                if self._lost:
                    return
                with suppress(BlockingIOError):
                    sent = self._socket.send(memoryview(self._unsent)[: READ_BYTES * 4])
                    del self._unsent[:sent]
                if not self._is_write_paused():
                    self._wake_senders()
            if self._eof_sent:
                self._shut_down_writing()
        except OSError as error:
            self._break(error)
        finally:
            self._flushing = False
            self._service.blocked.pop(self, None)
            self._wake_senders()

    def _wake_senders(self) -> None:
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    async def _checkpoint(self) -> None:
        # An operation that does not block must still notice cancellation, and give way now and then.
        self._unyielded += 1
        if self._unyielded < YIELD_EVERY:
            await checkpoint_if_cancelled()
        else:
            self._unyielded = 0
            await checkpoint()
            if self._closing:
                raise self._closed_error()

    # Ending

    @property
    def state(self) -> State:
        return "closed" if self._lost else "closing" if self._closing else "open"

    def _closed_error(self) -> Exception:
        if self._error is not None:
            error = BrokenResourceError(str(self._error))
            error.__cause__ = self._error
            return error
        return ClosedResourceError()

    def _break(self, error: OSError) -> None:
        self._error = self._error or error.with_traceback(None)  # whose frames would hold this connection
        self.abort_socket()

    def close_nowait(self, reason: str = NORMAL) -> None:
        if reason != NORMAL:
            self._reason = self._reason or reason
        if not self._closing:
            self._closing = True
            self._begin_close()

    def _begin_close(self) -> None:
        # Closing a socket that holds unread input makes the kernel reset the connection, and what was sent last may be
        # lost with it. So: flush, finish sending, read on until the peer finishes too, then close; `sweep` bounds it.
        if self._receiving:
            notify_closing(self._socket)  # or the receiver would go on waiting, in the way of `_linger`
        self._finish_sending()
        if self._eof and not self._unsent:
            self.abort_socket()
        else:
            self._service.closing[self] = (len(self._unsent), trio.current_time())
            self._nursery.start_soon(self._linger)

    async def _linger(self) -> None:
        try:
            while not self._eof and not self._lost:  # or lost before this task's first turn
                await wait_readable(self._socket)
                with suppress(BlockingIOError):
                    data = self._socket.recv(READ_BYTES)
                    self._eof = not data
                    self.bytes_in += len(data)
            while self._unsent:
                self._flushed = self._flushed or trio.Event()
                await self._flushed.wait()
        except (trio.ClosedResourceError, trio.BusyResourceError, OSError):
            pass  # closed meanwhile, by `sweep` or by the peer's reset
        finally:
            self.abort_socket()

    async def aclose(self) -> None:
        self.close_nowait()
        await checkpoint()

    def abort(self, reason: str = ABORTED) -> None:
        self._reason = self._reason or reason
        if reason != ABORTED and self._error is None:
            self._error = ConnectionAbortedError(f"aborted by the listener: {reason}")
        self.abort_socket()

    def abort_socket(self) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._sockname = self.sockname
        notify_closing(self._socket)
        self._socket.close()
        self._unsent.clear()
        self._service.blocked.pop(self, None)
        self._service.closing.pop(self, None)
        self._service.farewells.discard(self)
        self._wake_senders()
        self._ended()

    def _ended(self) -> None:
        if not self._handler_running and self.id:
            self._service.stopped(self, self._reason or NORMAL)

    def cancel_handler(self, reason: str) -> None:
        if self._handler_running:
            self._reason = self._reason or reason
            self._scope.cancel()

    def request_draining(self) -> None:
        if not self.draining:
            self.draining = True
            if self._draining_event is not None:
                self._draining_event.set()

    async def wait_draining(self) -> None:
        if self._draining_event is None:
            self._draining_event = trio.Event()
            if self.draining:
                self._draining_event.set()
        await self._draining_event.wait()

    # Looking at it

    @property
    def sockname(self) -> PeerName:  # type: ignore[override]
        return name_of(self._socket.getsockname()) if self._sockname is None else self._sockname

    def unsent_bytes(self) -> int:
        return len(self._unsent)

    def handler_stack(self) -> str:
        if self._task is None:
            return ""
        frames = [
            f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
            for frame, line in self._task.iter_await_frames()
        ]
        return "".join(frames)

    def _raw_socket(self) -> socket.socket:
        return cast("socket.socket", getattr(self._socket, "raw", self._socket))


class CallbackPoller:
    """One task that waits for all callback connections of a listener, by a private epoll(7) instance.

    trio's own wait costs a task for each connection; an epoll descriptor is readable when any of its sockets is.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._epoll: select.epoll | None = None
        self._connections: dict[int, TrioCallbackConnection] = {}

    def add(self, descriptor: int, connection: TrioCallbackConnection) -> None:
        """Call the connection's `on_readable` whenever its socket is readable."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._nursery.start_soon(self._run, self._epoll)
        self._connections[descriptor] = connection
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Stop looking at a socket, before it is closed; nothing happens if it is not looked at."""
        if self._epoll is not None and self._connections.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def _run(self, epoll: select.epoll) -> None:
        try:
            while True:
                await wait_readable(epoll.fileno())
                for descriptor, _ in epoll.poll(0, READY_BATCH):
                    connection = self._connections.get(descriptor)
                    if connection is not None:  # otherwise closed by the callback of one before it
                        connection.on_readable()
        finally:
            self._epoll = None
            epoll.close()


class TrioCallbackConnection(TrioConnection):
    """A connection served by the callbacks of one shared object."""

    __slots__ = ("_callbacks", "_poller", "_reading", "_writing_paused")

    def __init__(
        self,
        service: Service,
        nursery: trio.Nursery,
        accepted: socket.socket,
        poller: CallbackPoller,
        callbacks: CallbackHandler,
    ) -> None:
        super().__init__(service, nursery, accepted)
        self._callbacks = callbacks
        self._poller = poller
        self._reading = False
        self._writing_paused = False

    def _call(self, callback: Callable[[StreamConnection], None]) -> None:
        try:
            callback(self)
        except Exception as error:  # noqa: BLE001 - whatever a callback raises ends its own connection only
            self.close_nowait(self._reason_for(error))

    def _start(self) -> None:
        try:
            self.resume_reading()
        except OSError as error:  # no descriptor or memory for the poller
            self._error = error
        self._call(self._callbacks.connection_made)
        if self._error is not None:
            self.abort_socket()

    def on_readable(self) -> None:
        """The poller saw input."""
        try:
            data = self._socket.recv(self._service.read_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        if data:
            self.bytes_in += len(data)
            try:
                self._callbacks.data_received(self, data)
            except Exception as error:  # noqa: BLE001
                self.close_nowait(self._reason_for(error))
        else:
            self._eof = True
            self.pause_reading()
            self._call(self._callbacks.eof_received)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._poller.remove(self._socket.fileno())

    def resume_reading(self) -> None:
        if not self._reading and not self._closing and not self._eof:
            self._reading = True
            self._poller.add(self._socket.fileno(), self)

    def _write(self, data: bytes) -> None:
        super()._write(data)
        if self._is_write_paused() and not self._writing_paused:
            self._writing_paused = True
            self._call(self._callbacks.pause_writing)

    def _wake_senders(self) -> None:
        super()._wake_senders()
        if self._writing_paused and not self._closing:
            self._writing_paused = False
            self._call(self._callbacks.resume_writing)

    def _begin_close(self) -> None:
        self.pause_reading()
        super()._begin_close()

    def abort_socket(self) -> None:
        if not self._lost:
            self.pause_reading()
            if self._error is not None and not self._closing:
                self._reason = self._reason or RESET
            super().abort_socket()

    def _ended(self) -> None:
        if self.id:
            self._nursery.start_soon(self._tell_end)

    async def _tell_end(self) -> None:
        # Not at once: whoever closed it may be in the midst of a callback, of this or of another connection.
        self._call(lambda connection: self._callbacks.connection_lost(connection, self._error))
        super()._ended()

    def request_draining(self) -> None:
        if not self.draining:
            super().request_draining()
            self._call(self._callbacks.drain_requested)

    def cancel_handler(self, reason: str) -> None:
        self.close_nowait(reason)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:  # noqa: ARG002
        raise RuntimeError("start_tls() is for coroutine handlers")

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:  # noqa: ARG002
        raise RuntimeError("a callback handler gets its bytes by data_received; receive() is for coroutine handlers")

    __anext__ = receive


@asynccontextmanager
async def open_trio_carrier(service: Service) -> AsyncIterator[TrioCarrier]:
    """Give the carrier; every handler is a task of its nursery."""
    async with trio.open_nursery() as nursery:
        yield TrioCarrier(service, nursery)
        nursery.cancel_scope.cancel()  # the poller, and what `end_connections` gave up on


class TrioCarrier:
    """Accepts for one listener on trio."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self._service = service
        self._nursery = nursery
        self._poller = CallbackPoller(nursery)

    async def accept(self, listening: socket.socket) -> None:
        """Accept on a listening socket until cancelled; see `Carrier`."""
        await AcceptLoop(self._service, listening, self._serve).run()

    async def serve_queued(self, listening: socket.socket) -> None:
        """Serve the clients that wait in the kernel's queue now; see `Carrier`."""
        queue = self._service.options.tcp.backlog + 1  # listen(2): Linux lets one more wait
        await AcceptLoop(self._service, listening, self._serve).drain_queue(queue, may_wait=False)

    def _serve(self, accepted: socket.socket) -> None:
        callbacks = self._service.callbacks
        if self._service.upgrades is not None:
            from esockd_core._transports.trio_upgrade import make_upgraded  # noqa: PLC0415 (it is built on this)

            make_upgraded(self._service, self._nursery, accepted, self._poller).admit_and_start()
            return
        if callbacks is not None:
            TrioCallbackConnection(self._service, self._nursery, accepted, self._poller, callbacks).admit_and_start()
        else:
            TrioConnection(self._service, self._nursery, accepted).admit_and_start()
