"""Accepting on asyncio and uvloop, as fast as the event loop can without giving up the errno policy.

Both loops accept fastest in their own `create_server`, which makes the transport without a task or a future of ours:

* asyncio calls `accept` on the socket object it was given. It is given one whose `accept` follows the policy.
* uvloop accepts in C, and out of descriptors it accepts and closes what is queued without telling anyone. So it is
  watched: while descriptors are plenty it accepts by itself, near the limit the exact `AcceptLoop` takes over.

Clients that are to wait in the kernel's queue for room or a token are always taken by the exact `AcceptLoop`, and on
uvloop those of an `AskedSocket` as well.
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

from esockd_core._accept import BATCH, AcceptAnswer, AcceptLoop, AskedSocket, Backoff, answer_to, take
from esockd_core._descriptors import LOOK_EVERY_S, PLENTY, DescriptorWatch, free_descriptors, wait_until_plenty
from esockd_core._transports.asyncio import AsyncioConnection
from esockd_core._transports.asyncio_callbacks import AsyncioCallbackConnection
from esockd_core._transports.asyncio_upgrade import make_upgraded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_core._service import Service


@asynccontextmanager
async def open_asyncio_carrier(service: Service) -> AsyncIterator[AsyncioCarrier]:
    """Give the carrier; native tasks need no context of their own."""
    service.loop = loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        service.new_task = partial(asyncio.Task, loop=loop, name=service.name)  # half the cost of create_task
    else:
        service.new_task = partial(loop.create_task, name=service.name)
    service.caps_reads = isinstance(service.loop, asyncio.SelectorEventLoop)
    yield AsyncioCarrier(service)


class AsyncioCarrier:
    """Accepts for one listener on the running asyncio or uvloop loop."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def make_connection(self) -> AsyncioConnection:
        """The protocol of a new socket, by the style of the handler at this moment."""
        if self._service.upgrades is not None:
            return make_upgraded(self._service)
        if self._service.callbacks is not None:
            return AsyncioCallbackConnection(self._service, self._service.callbacks)
        return AsyncioConnection(self._service)

    async def accept(self, listening: socket.socket) -> None:
        """Accept on a listening socket until cancelled; see `Carrier`."""
        if self._service.leaves_in_backlog:
            await AcceptLoop(self._service, listening, self._serve).run()
        elif self._service.caps_reads:  # asyncio's own loop
            await self._accept_by_asyncio(listening)
        elif isinstance(listening, AskedSocket):
            await AcceptLoop(self._service, listening, self._serve).run()
        else:
            await self._accept_by_uvloop(listening)

    async def serve_queued(self, listening: socket.socket) -> None:
        """Serve the clients that wait in the kernel's queue now; see `Carrier`."""
        queue = self._service.options.tcp.backlog + 1  # listen(2): Linux lets one more wait
        await AcceptLoop(self._service, listening, self._serve).drain_queue(queue, may_wait=False)

    async def _serve(self, accepted: socket.socket) -> None:
        # Shielded: an accepted client belongs to a connection before anything may be cancelled.
        with anyio.CancelScope(shield=True):
            try:
                await asyncio.get_running_loop().connect_accepted_socket(self.make_connection, accepted)
            except OSError as error:
                accepted.close()
                self._service.admission.refuse_other(f"no transport for it: {error}")

    async def _accept_by_asyncio(self, listening: socket.socket) -> None:
        backoff = Backoff(self._service)
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
        server = await loop.create_server(self.make_connection, sock=source, backlog=BATCH, start_serving=False)
        try:
            await server.start_serving()  # apart from its creation, or a cancellation there would leave it running
            return await failed
        finally:
            await _close_server(server)

    async def _accept_by_uvloop(self, listening: socket.socket) -> None:
        backoff = Backoff(self._service)
        while True:
            if free_descriptors() >= PLENTY:
                try:
                    await self._accept_in_c(listening)
                except OSError as error:  # of making the server: the system may lack what this process does not
                    if answer_to(error) is AcceptAnswer.FAIL:
                        raise
                    backoff.fail(error)
                    await backoff.wait()
            try:
                async with anyio.create_task_group() as exact:
                    exact.start_soon(AcceptLoop(self._service, listening, self._serve).run)
                    await wait_until_plenty()
                    exact.cancel_scope.cancel()
            except ExceptionGroup as group:  # of the one error that the loop can have
                raise group.exceptions[0] from None

    async def _accept_in_c(self, listening: socket.socket) -> None:
        """Let uvloop accept; return when descriptors become scarce."""
        loop = asyncio.get_running_loop()
        watch = DescriptorWatch()
        service = self._service

        def make_and_count() -> AsyncioConnection:
            watch.accepts_until_look -= 1
            if watch.accepts_until_look <= 0:
                watch.look()
            if service.upgrades is not None:
                return make_upgraded(service)
            if service.callbacks is not None:
                return AsyncioCallbackConnection(service, service.callbacks)
            return AsyncioConnection(service)

        server = await loop.create_server(
            make_and_count, sock=listening.dup(), backlog=self._service.options.tcp.backlog, start_serving=False
        )
        try:
            await server.start_serving()
            while not watch.scarce.is_set():
                with anyio.move_on_after(LOOK_EVERY_S):
                    await watch.scarce.wait()
                watch.look()
                # uvloop tells nobody when somebody shut the socket down; the kernel does.
                if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    raise OSError(errno.EINVAL, "the listening socket was shut down")
        finally:
            await _close_server(server)


async def _close_server(server: asyncio.AbstractServer) -> None:
    """Accept no more, and let what is accepted already become connections, which takes the loop three passes."""
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
        """Do nothing: the socket listens already, and `create_server` would change its backlog."""

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
