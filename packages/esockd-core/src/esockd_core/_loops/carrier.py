"""What accepts connections on asyncio (uvloop included) or trio, behind one small interface."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

    from esockd_core._admission.gate import Gate
    from esockd_core._connection.site import Site
    from esockd_core._loops.datagram import DatagramCarrier


class Carrier(Protocol):
    """What a listener needs of an event loop that AnyIO does not offer."""

    async def accept(self, listening: socket.socket) -> None:
        """Accept on a listening socket until cancelled.

        Raises:
            OSError: If the listening socket will not work again.
        """

    async def serve_queued(self, listening: socket.socket, at_most: int) -> None:
        """Serve clients in the queue of a socket that is no longer accepted on.

        Args:
            listening: The socket, which is about to be closed.
            at_most: The number of clients to serve: those that had come before this call.

        Raises:
            OSError: If the listening socket will not work again, or the system lacks descriptors or memory.
        """


def open_datagram_carrier(site: Site) -> AbstractAsyncContextManager[DatagramCarrier]:
    """The carrier of a datagram listener for the running event loop; handlers live within its context."""
    if anyio.get_cancelled_exc_class() is CancelledError:
        from esockd_core._loops.asyncio.datagram import open_asyncio_datagrams  # noqa: PLC0415

        return open_asyncio_datagrams(site)
    from esockd_core._loops.trio.datagram import open_trio_datagrams  # noqa: PLC0415 (trio is an extra)

    return open_trio_datagrams(site)


def open_carrier(site: Site, gate: Gate) -> AbstractAsyncContextManager[Carrier]:
    """The carrier for the running event loop; handlers and sockets live within its context."""
    if anyio.get_cancelled_exc_class() is CancelledError:
        from esockd_core._loops.asyncio.accept import open_asyncio_carrier  # noqa: PLC0415

        return open_asyncio_carrier(site, gate)
    from esockd_core._loops.trio.accept import open_trio_carrier  # noqa: PLC0415 (trio is an extra)

    return open_trio_carrier(site, gate)
