"""Accepting on trio: always the exact `AcceptLoop`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from esockd_core._accept import AcceptLoop
from esockd_core._transports.trio import TrioConnection
from esockd_core._transports.trio_callbacks import CallbackPoller, TrioCallbackConnection
from esockd_core._transports.trio_upgrade import make_upgraded

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from esockd_core._service import Service


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
        service, nursery = self._service, self._nursery
        connection: TrioConnection
        if service.upgrades is not None:
            connection = make_upgraded(service, nursery, accepted, self._poller)
        elif service.callbacks is not None:
            connection = TrioCallbackConnection(service, nursery, accepted, self._poller, service.callbacks)
        else:
            connection = TrioConnection(service, nursery, accepted)
        connection.admit_and_start()
