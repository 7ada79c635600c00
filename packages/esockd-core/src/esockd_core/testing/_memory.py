"""Serves a connection in memory by a handler, as a listener serves a socket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._connection.face import READ_BYTES
from esockd_core._connection.handler import CallbackHandler, checked_handler
from esockd_core._connection.names import name_of_endpoint
from esockd_core._errors import InvalidOption
from esockd_core._listening.drain import Ending, drain_connections, end_connections
from esockd_core._listening.listener import READ_PASSES
from esockd_core._listening.sweeper import Sweeper
from esockd_core._options.listener import ListenerOptions
from esockd_core._stats.reasons import HANDLER_ERROR, KILLED, NORMAL, SHUTDOWN
from esockd_core._tls.facts import describe_tls_at_proxy
from esockd_core.testing._connection import MemoryConnection
from esockd_core.testing._stream import Facts, MemoryCallbackDriver, MemoryStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_core._connection.handler import CoroutineHandler, Handler
    from esockd_core._options.listener import PeerName
    from esockd_core._tls.facts import TlsInfo
    from esockd_core.testing._peer import MemoryPeer
    from esockd_proxyproto import ProxyHeader

CLIENT: Final = ("127.0.0.1", 50_000)
LISTENER: Final = ("127.0.0.1", 5_000)

# Not in step with the 0.1 s between two looks of `anyio.wait_all_tasks_blocked` on asyncio, which may never return.
LOOK_EVERY_S: Final = 0.03


class ServedInMemory(MemoryStream, MemoryConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
    """The whole of a `MemoryConnection`: the stream, and its service by handlers of both styles."""

    failure: BaseException | None = None
    _was_served: bool = False
    _was_told_eof: bool = False

    async def serve(self, handler: Handler) -> str:
        if self._was_served:
            raise RuntimeError("this connection was served already: make a new one")
        checked_handler(handler)
        self._was_served = self.handler_running = True
        reason, was_cancelled = SHUTDOWN, True
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._keep_time)
                try:
                    if isinstance(handler, CallbackHandler):
                        await self._run_callbacks(MemoryCallbackDriver(handler))
                        reason, was_cancelled = NORMAL, False
                    else:
                        reason, was_cancelled = await self._run_coroutine(handler)
                finally:
                    self.handler_running = False
                    self._handler_ended(reason, cancelled=was_cancelled)
                while not self._lost:
                    await self._wire.wait()
                task_group.cancel_scope.cancel()
        finally:
            self.close_socket()
        return self.reason or reason

    @asynccontextmanager
    async def served_by(self, handler: Handler, *, raise_failure: bool = True) -> AsyncIterator[MemoryPeer]:
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self.serve, handler)
                yield self.peer
                await self.peer.aclose()
                for _ in range(READ_PASSES):
                    await checkpoint()
                await drain_connections(self._site, Ending(self._site.options.shutdown_timeout))
                await end_connections(self._site)
        except BaseExceptionGroup as group:  # a failed assertion of the block is to arrive as one
            error = group.exceptions[0] if len(group.exceptions) == 1 else group
            raise error from (raise_failure and self.failure) or error.__cause__
        if raise_failure and self.failure is not None:
            raise self.failure

    async def _keep_time(self) -> None:
        """Look at timeouts, as a listener does a few times a second."""
        sweeper = Sweeper(self._site)
        while True:
            due = anyio.current_time() + max(LOOK_EVERY_S, sweeper.next_look())
            with anyio.CancelScope(deadline=due):
                await self._wire.wait()
            now = anyio.current_time()
            await sweeper.sweep(now, max(0.0, now - due))

    async def _run_coroutine(self, handler: CoroutineHandler) -> tuple[str, bool]:
        """Run the handler, and return the reason of its end and whether it was cancelled."""
        try:
            with anyio.CancelScope() as self.scope:
                await cast("Any", handler)(self)
            if self.scope.cancelled_caught:
                return self.end_reason or KILLED, True
        except Exception as error:  # noqa: BLE001 - whatever a handler raises ends its own connection only
            return self.reason_for(error), False
        return NORMAL, False

    async def _run_callbacks(self, driver: MemoryCallbackDriver) -> None:
        wire, self.driver = self._wire, driver
        driver.start(self)
        try:
            while True:
                await checkpoint()
                if self._lost:
                    return
                if self._reading and not self._closing and (data := self._take(READ_BYTES)) is not None:
                    driver.data_received(self, data)
                elif self._reading and self._eof and not (self._closing or self._was_told_eof):
                    self._was_told_eof = True
                    driver.eof_received(self)
                elif not self._lost:
                    await wire.wait()
        finally:
            self.close_socket()
            driver.tell_lost(self)

    def reason_for(self, error: BaseException) -> str:
        reason = super().reason_for(error)
        if reason == HANDLER_ERROR:
            self.failure = error
        return reason


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
        socket_peername: The peer; None for `peername`, or with `proxy` for a proxy on loopback.
        sockname: The listener's end.
        proxy: The PROXY header that came first.
        tls: The facts about TLS that the handler sees; None takes them from the PROXY header. Bytes are not encrypted.
        chunk_bytes: The most bytes that a handler gets at a time; with 1 it gets each byte by itself.
        window_bytes: How many bytes the peer takes before it receives them, as a client's kernel does. Further bytes
            wait in the connection. With 0 the peer takes only what it receives.
        options: Options for buffers and timeouts, as of a listener; None for the defaults. The connection is not
            judged.

    Raises:
        InvalidOption: If `chunk_bytes` is less than 1, or `window_bytes` less than 0.
        esockd_proxyproto.InvalidTlv: If the PROXY header's TLS part is malformed.
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
        tls=describe_tls_at_proxy(proxy) if tls is None and proxy is not None else tls,
    )
    return ServedInMemory(facts, chunk_bytes, window_bytes, options or ListenerOptions())
