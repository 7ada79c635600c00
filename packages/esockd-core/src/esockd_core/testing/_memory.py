"""Serving a connection in memory by a handler, as a listener serves a socket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._connection import HANDLER_ERROR, KILLED, NORMAL, READ_BYTES, RESET, SHUTDOWN
from esockd_core._ending import Ending, drain_connections, end_connections
from esockd_core._errors import InvalidOption
from esockd_core._handler import CallbackHandler
from esockd_core._listener import READ_PASSES
from esockd_core._options import ListenerOptions
from esockd_core._peer_certificate import describe_upstream_tls
from esockd_core._upgrade import name_of_endpoint
from esockd_core.testing._connection import MemoryConnection
from esockd_core.testing._stream import Facts, MemoryStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esockd_core._handler import CoroutineHandler, Handler
    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core.testing._peer import MemoryPeer
    from esockd_proxyproto import ProxyHeader

CLIENT: Final = ("127.0.0.1", 50_000)
LISTENER: Final = ("127.0.0.1", 5_000)

# Not in step with the 0.1 s between two looks of `anyio.wait_all_tasks_blocked` on asyncio, which may never return.
LOOK_EVERY_S: Final = 0.03


class ServedInMemory(MemoryStream, MemoryConnection):
    """The whole of a `MemoryConnection`: the stream, and its service by handlers of both styles."""

    failure: BaseException | None = None
    _callbacks: CallbackHandler | None = None
    _reading: bool = True
    _was_served: bool = False
    _writing_paused: bool = False

    async def serve(self, handler: Handler) -> str:
        if self._was_served:
            raise RuntimeError("this connection was served already: make a new one")
        self._service.set_handler(handler)
        self._was_served = self._handler_running = True
        reason = SHUTDOWN
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._keep_time)
                try:
                    if isinstance(handler, CallbackHandler):
                        reason = await self._run_callbacks(handler)
                    else:
                        reason = await self._run_coroutine(handler)
                finally:
                    self._handler_running = False
                    self._handler_ended(reason)
                while not self._lost:
                    await self._wire.wait()
                task_group.cancel_scope.cancel()
        finally:
            self.abort_socket()
        return self.reason or reason

    @asynccontextmanager
    async def served_by(self, handler: Handler) -> AsyncIterator[MemoryPeer]:
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self.serve, handler)
                yield self.peer
                await self.peer.aclose()
                for _ in range(READ_PASSES):
                    await checkpoint()
                await drain_connections(self._service, Ending(self._service.options.shutdown_timeout))
                await end_connections(self._service)
        except BaseExceptionGroup as group:  # a failed assertion of the block is to arrive as one
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise

    async def _keep_time(self) -> None:
        """Look at timeouts, as a listener does a few times a second."""
        service = self._service
        while True:
            is_bounded = service.blocked or service.closing
            with anyio.move_on_after(LOOK_EVERY_S if is_bounded else service.sweep_all_every_s):
                await self._wire.wait()
            now = anyio.current_time()
            service.sweep(now)
            await service.sweep_all(now)

    async def _run_coroutine(self, handler: CoroutineHandler) -> str:
        try:
            with anyio.CancelScope() as self._scope:
                await handler(self)
            if self._scope.cancelled_caught:
                return SHUTDOWN if self.draining else KILLED
        except Exception as error:  # noqa: BLE001 - whatever a handler raises ends its own connection only
            return self._reason_for(error)
        return NORMAL

    async def _run_callbacks(self, callbacks: CallbackHandler) -> str:
        wire, self._callbacks = self._wire, callbacks
        self._call(callbacks.connection_made)
        try:
            while True:
                await checkpoint()
                if self._lost:
                    return NORMAL
                if self._reading and wire.incoming:
                    self._call(callbacks.data_received, self._take(READ_BYTES))
                elif self._reading and wire.peer_reset:
                    self._look_at_wire()
                elif self._reading and wire.peer_finished and not (self._eof or self._closing):
                    self._eof = True
                    self._call(callbacks.eof_received)
                elif self._writing_paused and not (self._is_write_paused() or self._closing):
                    self._writing_paused = False
                    self._call(callbacks.resume_writing)
                else:
                    await wire.wait()
        finally:
            self.abort_socket()
            self._call(callbacks.connection_lost, self._error)

    def _reason_for(self, error: BaseException) -> str:
        reason = super()._reason_for(error)
        if reason == HANDLER_ERROR:
            self.failure = error
        return reason

    # Callbacks

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(self, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever a callback raises ends its own connection only
            self.close_nowait(self._reason_for(error))

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        if self._callbacks is not None:
            raise RuntimeError("a callback handler gets its bytes by data_received")
        return await super().receive(max_bytes)

    def pause_reading(self) -> None:
        if self._callbacks is None:
            super().pause_reading()
        self._reading = False

    def resume_reading(self) -> None:
        if self._callbacks is None:
            super().resume_reading()
        self._reading = True
        self._wire.change()

    def _write(self, data: bytes) -> None:
        super()._write(data)
        if self._callbacks is not None and self._is_write_paused() and not self._writing_paused:
            self._writing_paused = True
            self._call(self._callbacks.pause_writing)

    def request_draining(self) -> None:
        was_draining = self.draining
        super().request_draining()
        if self._callbacks is not None and not was_draining:
            self._call(self._callbacks.drain_requested)

    def cancel_handler(self, reason: str) -> None:
        if self._callbacks is not None:
            self.close_nowait(reason)
        else:
            super().cancel_handler(reason)

    def abort_socket(self) -> None:
        if self._callbacks is not None and self._error is not None and not self._closing:
            self._reason = self._reason or RESET
        super().abort_socket()


def memory_connection(
    *,
    peername: PeerName | None = None,
    socket_peername: PeerName | None = None,
    sockname: PeerName = LISTENER,
    proxy: ProxyHeader | None = None,
    tls: TlsInfo | None = None,
    chunk_bytes: int = READ_BYTES,
    window_bytes: int = READ_BYTES,
    options: ListenerOptions | None = None,
) -> MemoryConnection:
    """Make a connection for a test of a handler.

    Args:
        peername: The client; None for the source of `proxy`, or else `socket_peername`.
        socket_peername: Who is connected; None for `peername`, or for a proxy on loopback.
        sockname: The listener's end.
        proxy: The PROXY header that came first.
        tls: What the handler is told of TLS; None for what the PROXY header says of it. Bytes travel in the clear.
        chunk_bytes: The most that a handler is given at a time; 1 gives it each byte by itself.
        window_bytes: What the peer takes though it does not receive, as a client's kernel does; more waits in the
            connection. With 0 the peer takes only what it receives.
        options: Buffers and timeouts, as of a listener; the defaults when None. Admission is over.

    Raises:
        InvalidOption: `chunk_bytes` is less than 1, or `window_bytes` less than 0.
        esockd_proxyproto.InvalidTlv: What the PROXY header says of TLS is malformed.
    """
    if chunk_bytes < 1 or window_bytes < 0:
        raise InvalidOption(f"chunk_bytes is {chunk_bytes}, it takes 1 or more; window_bytes {window_bytes}, 0 or more")
    if proxy is None:
        socket_peername = peername if socket_peername is None else socket_peername
    elif peername is None and proxy.source is not None:
        peername = name_of_endpoint(proxy.source)
    socket_peername = CLIENT if socket_peername is None else socket_peername
    facts = Facts(
        peername=socket_peername if peername is None else peername,
        socket_peername=socket_peername,
        sockname=sockname,
        proxy=proxy,
        tls=describe_upstream_tls(proxy) if tls is None and proxy is not None else tls,
    )
    return ServedInMemory(facts, chunk_bytes, window_bytes, options or ListenerOptions())
