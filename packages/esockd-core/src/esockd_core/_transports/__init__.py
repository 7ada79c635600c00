"""What carries connections: asyncio (uvloop included) or trio, behind one small interface."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

    from esockd_core._service import Service


class Carrier(Protocol):
    """What a listener asks of an event loop beside AnyIO's own functions."""

    async def accept(self, listening: socket.socket) -> None:
        """Accept on a listening socket until cancelled.

        Raises:
            OSError: The listening socket will not work again.
        """

    async def serve_queued(self, listening: socket.socket) -> None:
        """Serve the clients that wait in the kernel's queue now, and no others."""


def open_carrier(service: Service) -> AbstractAsyncContextManager[Carrier]:
    """The carrier for the event loop that runs; handlers and sockets live within its context."""
    if anyio.get_cancelled_exc_class() is CancelledError:
        from esockd_core._transports.asyncio_accept import open_asyncio_carrier  # noqa: PLC0415

        return open_asyncio_carrier(service)
    from esockd_core._transports.trio_accept import open_trio_carrier  # noqa: PLC0415 (trio is an extra)

    return open_trio_carrier(service)
