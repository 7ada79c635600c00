"""Accepting on trio: always the exact `AcceptLoop`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from esockd_core._loops.accept import AcceptLoop, take_queued
from esockd_core._loops.trio.arrival import Arrival
from esockd_core._loops.trio.forward import TrioConnector
from esockd_core._loops.trio.poller import CallbackPoller
from esockd_core._loops.trio.side import TrioSide

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from esockd_core._admission.gate import Gate
    from esockd_core._connection.site import Site


@asynccontextmanager
async def open_trio_carrier(site: Site, gate: Gate) -> AsyncIterator[TrioCarrier]:
    """Yield the carrier; every handler is a task of its nursery."""
    async with trio.open_nursery() as nursery:
        side = TrioSide(nursery, CallbackPoller(nursery), site.counters.accept_delays)
        site.connector = lambda client: TrioConnector(client, side)
        yield TrioCarrier(site, gate, side)
        nursery.cancel_scope.cancel()  # the poller, and what `end_connections` gave up on


class TrioCarrier:
    """Accepts for one listener on trio."""

    def __init__(self, site: Site, gate: Gate, side: TrioSide) -> None:
        self._site = site
        self._gate = gate
        self._context = side.context
        self._serve = Arrival(site, side).new_connection

    async def accept(self, listening: socket.socket) -> None:
        """Accept on a listening socket until cancelled; see `Carrier`."""
        await AcceptLoop(self._site, self._gate, listening, self._serve).run()

    async def serve_queued(self, listening: socket.socket, at_most: int) -> None:
        """Serve clients of a socket's queue; see `Carrier`."""
        while taken := await take_queued(self._site, listening, at_most):
            at_most -= len(taken)
            for accepted in taken:
                self._context.copy().run(self._serve, accepted)  # and not in that of the code that closes or reopens
