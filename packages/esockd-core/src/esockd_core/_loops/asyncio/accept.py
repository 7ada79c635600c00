"""Accepting on asyncio and uvloop, as fast as the event loop can without giving up the errno policy.

Both loops accept fastest in their own `create_server`, which makes the transport without a task or a future of ours:

* asyncio calls `accept` on the socket object that it is given. It gets one whose `accept` follows the policy.
* uvloop accepts in C, and when descriptors run out it accepts and closes queued clients silently. So it is watched:
  while descriptors are plenty it accepts by itself, and near the limit the exact `AcceptLoop` takes over.

If clients may be left in the kernel's queue to wait for room or a token, the exact `AcceptLoop` always accepts them. On
uvloop it also accepts those of an `AskedSocket`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from esockd_core._loops.accept import (
    BATCH,
    AcceptAnswer,
    AcceptLoop,
    Backoff,
    answer_to,
    take,
    take_queued,
)
from esockd_core._loops.asyncio import speedups  # noqa: F401 (the methods in C, where they are installed)
from esockd_core._loops.asyncio.arrival import Arrival
from esockd_core._loops.asyncio.forward import AsyncioConnector
from esockd_core._loops.asyncio.side import AsyncioSide
from esockd_core._loops.asyncio.stream import AsyncioStream
from esockd_core._platform.descriptors import (
    LOOK_EVERY_S,
    DescriptorWatch,
    count_descriptors,
    wait_until_plenty,
)
from esockd_core._platform.listening import is_listening
from esockd_core._platform.socket_queues import accept_queue
from esockd_core._sockets.asked import AskedSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_core._admission.gate import Gate
    from esockd_core._connection.site import Site


@asynccontextmanager
async def open_asyncio_carrier(site: Site, gate: Gate) -> AsyncIterator[AsyncioCarrier]:
    """Yield the carrier; native tasks need no context of their own."""
    side = AsyncioSide(site.name, site.counters.accept_delays)
    site.connector = lambda client: AsyncioConnector(client, side)
    yield AsyncioCarrier(site, gate, side)


class AsyncioCarrier:
    """Accepts for one listener on the running asyncio or uvloop loop."""

    def __init__(self, site: Site, gate: Gate, side: AsyncioSide) -> None:
        self._site = site
        self._gate = gate
        self._side = side
        self._new_connection = partial(AsyncioStream, site, Arrival(site, side), side)  # without a call of Python's

    async def accept(self, listening: socket.socket) -> None:
        """Accept on a listening socket until cancelled; see `Carrier`."""
        if self._gate.leaves_in_backlog:
            await AcceptLoop(self._site, self._gate, listening, self._serve).run()
        elif self._side.caps_reads:  # asyncio's own loop
            await self._accept_by_asyncio(listening)
        elif isinstance(listening, AskedSocket):
            await AcceptLoop(self._site, self._gate, listening, self._serve).run()
        else:
            await self._accept_by_uvloop(listening)

    async def serve_queued(self, listening: socket.socket, at_most: int) -> None:
        """Serve clients of a socket's queue; see `Carrier`."""
        while taken := await take_queued(self._site, listening, at_most):
            at_most -= len(taken)
            with anyio.CancelScope(shield=True):  # as in `_serve`: they are tasks of their own
                context = self._side.context.copy()  # and not that of the code that closes or reopens the listener
                tasks = [context.run(asyncio.ensure_future, self._serve(accepted)) for accepted in taken]
                await asyncio.gather(*tasks)

    async def _serve(self, accepted: socket.socket) -> None:
        # Shielded: an accepted client belongs to a connection before anything may be cancelled.
        with anyio.CancelScope(shield=True):
            try:
                await asyncio.get_running_loop().connect_accepted_socket(self._new_connection, accepted)
            except OSError as error:
                accepted.close()
                self._gate.admission.refuse_other(f"no transport for it: {error}")

    async def _accept_by_asyncio(self, listening: socket.socket) -> None:
        backoff = Backoff(self._site)
        while True:
            try:
                error = await self._accept_until_error(listening, backoff)
            except OSError as no_descriptor:  # for a socket of the server's own
                error = no_descriptor
            if answer_to(error) is AcceptAnswer.FAIL:
                raise error
            backoff.fail(error)
            await backoff.wait()

    async def _accept_until_error(self, listening: socket.socket, backoff: Backoff) -> OSError:
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[OSError] = loop.create_future()
        source = _PolicySocket(listening, backoff, failed)
        server = await loop.create_server(self._new_connection, sock=source, backlog=BATCH, start_serving=False)
        try:
            await server.start_serving()  # apart from its creation, or a cancellation there would leave it running
            return await failed
        finally:
            await _close_server(server)

    async def _accept_by_uvloop(self, listening: socket.socket) -> None:
        backoff = Backoff(self._site)
        while True:
            if count_descriptors().are_plenty:
                try:
                    await self._accept_in_c(listening)
                except OSError as error:  # of making the server: the system may lack what this process does not
                    if answer_to(error) is AcceptAnswer.FAIL:
                        raise
                    backoff.fail(error)
                    await backoff.wait()
            try:
                async with anyio.create_task_group() as exact:
                    exact.start_soon(AcceptLoop(self._site, self._gate, listening, self._serve).run)
                    await wait_until_plenty()
                    exact.cancel_scope.cancel()
            except ExceptionGroup as group:  # of the one error that the loop can have
                raise group.exceptions[0] from None

    async def _accept_in_c(self, listening: socket.socket) -> None:
        """Let uvloop accept; return when descriptors become scarce."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        timer: asyncio.TimerHandle
        new_connection = self._new_connection

        def stop() -> None:
            if not ended.done():
                ended.set_result(None)

        watch = DescriptorWatch(stop)

        def new_counted() -> AsyncioStream:
            watch.accepts_until_look -= 1
            if watch.accepts_until_look <= 0:
                watch.look()
            return new_connection()

        def look() -> None:
            nonlocal timer
            timer = loop.call_later(LOOK_EVERY_S, look)
            watch.look()
            # uvloop tells nobody when somebody shut the socket down; the kernel does.
            if is_listening(listening) is False and not ended.done():
                ended.set_exception(OSError(errno.EINVAL, "the listening socket was shut down"))

        # It calls listen(2), which would change the backlog of a socket that somebody else opened.
        queue = accept_queue(listening)
        backlog = self._site.options.tcp.backlog if queue is None else queue[1]
        server = await loop.create_server(new_counted, sock=listening.dup(), backlog=backlog, start_serving=False)
        timer = loop.call_later(LOOK_EVERY_S, look)
        try:
            await server.start_serving()
            await ended
        finally:
            timer.cancel()
            await _close_server(server)


async def _close_server(server: asyncio.AbstractServer) -> None:
    """Stop accepting, and let accepted sockets become connections, which takes the loop three passes."""
    server.close()
    with anyio.CancelScope(shield=True):
        for _ in range(3):
            await asyncio.sleep(0)


class _PolicySocket(socket.socket):
    """A listening socket whose `accept` follows the errno policy and reports what ends a round of accepting."""

    def __init__(self, listening: socket.socket, backoff: Backoff, failed: asyncio.Future[OSError]) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=os.dup(listening.fileno()))
        self._take = partial(take, listening.accept)
        self._backoff = backoff
        self._failed = failed

    def listen(self, backlog: int = 0, /) -> None:
        """Do nothing: the socket listens already, and another call would change its backlog."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a client, or end the round with `BlockingIOError`, as asyncio expects."""
        if self._failed.done():
            raise BlockingIOError
        try:
            accepted, _ = self._take()
        except OSError as error:
            if answer_to(error) is not AcceptAnswer.WAIT:
                self._failed.set_result(error)
            raise BlockingIOError from None
        self._backoff.reset()
        try:
            return accepted, accepted.getpeername()
        except OSError:
            return accepted, None  # accept(2) gives an address even of a peer that was gone already
