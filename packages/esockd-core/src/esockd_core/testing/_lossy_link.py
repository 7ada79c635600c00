"""A network between real clients and a real datagram listener that loses, doubles and reorders what passes it."""

from __future__ import annotations

import socket
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from esockd_core.testing._impairment import Impairment


class _Link:
    """Relays datagrams, with one socket for each client towards the listener."""

    def __init__(self, front: socket.socket, target: tuple[str, int], impairment: Impairment, tasks: TaskGroup) -> None:
        self._front = front
        self._target = target
        self._impairment = impairment
        self._tasks = tasks
        self._backs: dict[tuple[str, int], socket.socket] = {}

    async def run(self) -> None:
        """Relay what clients send."""
        while True:
            await anyio.wait_readable(self._front)
            with suppress(OSError):
                datagram, client = self._front.recvfrom(65_536)
                for each in self._impairment.passes(datagram, ("in", client)):
                    self._back(client).send(each)

    def _back(self, client: tuple[str, int]) -> socket.socket:
        if client not in self._backs:
            self._backs[client] = back = socket.socket(self._front.family, socket.SOCK_DGRAM)
            back.connect(self._target)
            back.setblocking(False)
            self._tasks.start_soon(self._answer, client, back)
        return self._backs[client]

    async def _answer(self, client: tuple[str, int], back: socket.socket) -> None:
        while True:
            await anyio.wait_readable(back)
            with suppress(OSError):  # such as a port that nobody listens on any more
                for each in self._impairment.passes(back.recv(65_536), ("out", client)):
                    self._front.sendto(each, client)

    def close(self) -> None:
        """Close every socket."""
        for sock in (self._front, *self._backs.values()):
            sock.close()


@asynccontextmanager
async def lossy_link(host: str, port: int, impairment: Impairment) -> AsyncIterator[tuple[str, int]]:
    """Put a bad network in front of a datagram listener for the duration of a block.

    Args:
        host: The listener's address.
        port: Its port.
        impairment: What becomes of datagrams on their way, in both directions.

    Yields:
        Host and port that clients use instead.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as front, ExitStack() as after_the_tasks:
        front.bind((host, 0))
        front.setblocking(False)
        async with anyio.create_task_group() as tasks:
            link = _Link(front, (host, port), impairment, tasks)
            after_the_tasks.callback(link.close)  # no sooner: they wait for these sockets
            tasks.start_soon(link.run)
            try:
                yield host, front.getsockname()[1]
            finally:
                tasks.cancel_scope.cancel()
