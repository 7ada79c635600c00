"""Waits for the input of all callback connections of a listener in one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio
from trio.lowlevel import wait_readable

from esockd_core._platform.poller import open_poller

if TYPE_CHECKING:
    from esockd_core._platform.poller import Poller

READY_BATCH: Final = 256  # sockets one look may report


class Readable(Protocol):
    """A connection that is told when there is input."""

    def on_readable(self) -> None:
        """There is input, or an end or an error to read."""


class CallbackPoller:
    """One task that waits for many sockets.

    trio's own wait takes a task for each connection. The descriptor of a poller is readable when any of its sockets is.
    If the system has no such descriptor, each socket gets a task after all.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._poller: Poller | None = None
        self._is_open = False
        self._connections: dict[int, Readable] = {}
        self._scopes: dict[int, trio.CancelScope] = {}  # of the tasks where there is no poller

    def add(self, descriptor: int, connection: Readable) -> None:
        """Call the connection's `on_readable` whenever its socket is readable. Adding a socket again does nothing.

        Raises:
            OSError: If there is no descriptor or memory for it.
        """
        if descriptor in self._connections:
            return
        if not self._is_open:
            self._poller = open_poller()
            self._is_open = True
            if self._poller is not None:
                self._nursery.start_soon(self._run, self._poller)
        if self._poller is not None:
            self._poller.register(descriptor)
        else:
            self._scopes[descriptor] = scope = trio.CancelScope()
            self._nursery.start_soon(self._wait_for_one, descriptor, connection, scope)
        self._connections[descriptor] = connection

    def remove(self, descriptor: int) -> None:
        """Stop watching a socket, before it is closed. Does nothing if the socket is not watched."""
        if self._connections.pop(descriptor, None) is None:
            return
        if self._poller is not None:
            self._poller.unregister(descriptor)
        elif descriptor in self._scopes:
            self._scopes.pop(descriptor).cancel()

    async def _run(self, poller: Poller) -> None:
        try:
            while True:
                await wait_readable(poller.fileno())
                for descriptor in poller.ready(READY_BATCH):
                    connection = self._connections.get(descriptor)
                    if connection is not None:  # otherwise closed by the callback of one before it
                        connection.on_readable()
        finally:
            self._is_open = False
            self._poller = None
            self._connections.clear()
            poller.close()

    async def _wait_for_one(self, descriptor: int, connection: Readable, scope: trio.CancelScope) -> None:
        with scope:
            while self._scopes.get(descriptor) is scope:  # or else the number may be nobody's, or another's, by now
                await wait_readable(descriptor)
                connection.on_readable()
