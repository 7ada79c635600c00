"""Connections on trio: a non-blocking socket, waited for with trio's own primitives.

A read that came up short emptied the kernel's buffer, so the next one waits first instead of asking in vain. What a
send could not hand to the kernel at once is kept and flushed by a task of its own: a cancelled send loses nothing.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import trio
from anyio import BrokenResourceError, BusyResourceError, EndOfStream, WouldBlock
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, notify_closing, wait_readable, wait_writable

from esockd_core._carried import YIELD_EVERY, Carried
from esockd_core._connection import KILLED, NORMAL, READ_BYTES, SHUTDOWN, as_bytes, bad_max_bytes, name_of
from esockd_core._tls import TlsEngine
from esockd_core._transports.trio_tls import TlsSocket, shake_hands
from esockd_core._upgrade import UpgradeRefused

if TYPE_CHECKING:
    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._relay import Forwarding
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions


class TrioConnection(Carried):
    """A connection served by a coroutine handler."""

    __slots__ = (
        "_flushed",
        "_flushing",
        "_handler_running",
        "_kept",
        "_may_be_readable",
        "_nursery",
        "_receiving",
        "_scope",
        "_socket",
        "_sockname",
        "_task",
        "_unsent",
    )

    def __init__(self, service: Service, nursery: trio.Nursery, accepted: socket.socket) -> None:
        super().__init__(service)
        self._nursery = nursery
        self._socket = accepted
        self._task: trio.lowlevel.Task | None = None
        self._sockname: PeerName | None = None  # of a closed socket, which has no name any more
        self._unsent = bytearray()
        self._kept: bytearray | None = None  # what is sent during a handshake, None when there is none
        self._flushed: trio.Event | None = None
        self._handler_running = False
        self._flushing = False
        self._receiving = False
        self._may_be_readable = False
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
        self._scope = trio.CancelScope()  # here and not in the task: it may be cancelled before its first turn
        self.moved_at = trio.current_time()
        self._nursery.start_soon(self._run_handler)

    async def _run_handler(self) -> None:
        self._task = trio.lowlevel.current_task()
        self._service.counters.accept_delays.note(trio.current_time() - self.moved_at)
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
            self._handler_ended(reason)

    # Receiving

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        self._check_receivable(max_bytes)
        self._receiving = True
        try:
            if self._may_be_readable or self._eof:  # otherwise `wait_readable` is a checkpoint
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

    def _check_receivable(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise bad_max_bytes(max_bytes)
        if self._receiving:
            raise BusyResourceError("receiving from")
        if self._closing:
            raise self._closed_error()

    def pause_reading(self) -> None:
        raise RuntimeError("a coroutine handler pauses reading by not calling receive()")

    resume_reading = pause_reading

    # Sending

    async def send(self, item: bytes) -> None:
        await self._checkpoint()
        if self._is_write_paused():
            await self._wait_writable()  # for what a cancelled send left, or another task's
        self._write(item)
        if self._is_write_paused():
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        while self._is_write_paused():
            await self._wait_written()
        if self._lost:
            raise self._closed_error()

    def _is_write_paused(self) -> bool:
        waiting = self._unsent if self._kept is None else self._kept
        return len(waiting) > self._service.options.write_buffer_bytes

    def send_nowait(self, data: bytes) -> None:
        if self._is_write_paused():
            data = as_bytes(data)
            if self.unsent_bytes() + len(data) > self._service.options.write_limit_bytes:
                raise WouldBlock
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._closing or self._eof_sent:
            raise self._closed_error()
        data = as_bytes(data)
        self.bytes_out += len(data)
        self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept += data
            return
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
                self._wake_if_room()
            if self._eof_sent:
                self._shut_down_writing()
        except OSError as error:
            self._break(error)
        finally:
            self._flushing = False
            self._service.blocked.pop(self, None)
            self._wake_senders()

    async def _wait_flushed(self) -> None:
        """Wait until everything is handed over."""
        while self._flushing and not self._lost:
            await self._wait_written()

    async def _wait_written(self) -> None:
        if self._flushed is None:
            self._flushed = trio.Event()
        await self._flushed.wait()

    def _wake_if_room(self) -> None:
        if not self._is_write_paused():
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

    # TLS

    @property
    def tls(self) -> TlsInfo | None:
        return getattr(self._socket, "info", None)

    def forwarding(self) -> Forwarding:
        from esockd_core._transports.trio_forward import TrioForwarding  # noqa: PLC0415 (it is built on this)

        return TrioForwarding(self, self._nursery)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._begin_tls()
        try:
            await self._shake(options, received)
        finally:
            self._wake_if_room()

    def _begin_tls(self) -> None:
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if self._kept is not None or isinstance(self._socket, TlsSocket):
            raise RuntimeError("the connection has TLS already")
        self._kept = bytearray()
        self._receiving = True
        self._service.upgrading.handshakes[self] = trio.current_time()

    async def _shake(self, options: TlsOptions, received: bytes) -> None:
        try:
            await self._wait_flushed()  # what was sent in the clear
            if self._closing:
                raise self._closed_error()
            unread = received + getattr(self._socket, "buffered", b"")
            engine = TlsEngine(options.context)
            self._socket = cast("socket.socket", await shake_hands(self._raw_socket(), engine, unread))
        except UpgradeRefused as refused:
            self._tls_refused(refused.why)
            raise BrokenResourceError(refused.why) from refused
        except trio.ClosedResourceError:
            raise self._closed_error() from None
        except trio.Cancelled:
            self.abort()
            raise
        else:
            self._service.upgrading.handshake_done(self, trio.current_time())
        finally:
            kept, self._kept = self._kept, None
            self._receiving = False
            self._service.upgrading.handshakes.pop(self, None)
        self._may_be_readable = True
        if kept and not self._closing:
            self._hand_over(bytes(kept))

    # Ending

    def _break(self, error: OSError) -> None:
        self._error = self._error or error.with_traceback(None)  # whose frames would hold this connection
        self.abort_socket()

    def _begin_close(self) -> None:
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
                await self._wait_written()
        except (trio.ClosedResourceError, trio.BusyResourceError, OSError):
            pass  # closed meanwhile, by `sweep` or by the peer's reset
        finally:
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

    # Looking at it

    @property
    def sockname(self) -> PeerName:  # type: ignore[override]
        return name_of(self._socket.getsockname()) if self._sockname is None else self._sockname

    def unsent_bytes(self) -> int:
        return len(self._unsent) + len(self._kept or b"")

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
