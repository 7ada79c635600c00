"""The acceptors of a listener: so many for each socket, each started again when it crashes."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    import socket

    from esockd_core._sockets import ListeningSockets
    from esockd_core._transports import Carrier

logger = logging.getLogger("esockd_core")

CRASHES: Final = 5  # of one acceptor ...
CRASH_WINDOW_S: Final = 10.0  # ... within this time are the listener's end


@dataclass(slots=True)
class Acceptor:
    """One registration of a listening socket with the event loop.

    Attributes:
        id: Its number within the listener, from 0.
        address: What its socket is bound to.
        restarts: How often it crashed and was started again.
    """

    id: int
    address: str
    restarts: int = 0


class Acceptors:
    """Runs the acceptors of a listener, and stops and starts them without touching a connection or a queued client."""

    def __init__(self, name: str, sockets: ListeningSockets, carrier: Carrier, per_socket: int) -> None:
        self._name = name
        self._carrier = carrier
        self._sockets = [sock for sock in sockets.sockets for _ in range(per_socket)]
        addresses = [address for address in sockets.addresses for _ in range(per_socket)]
        self.acceptors = [Acceptor(number, address) for number, address in enumerate(addresses)]
        self._scope: anyio.CancelScope | None = None
        self._stopped = anyio.Event()

    async def run(self) -> None:
        """Accept until `stop` is called.

        Raises:
            OSError: A listening socket will not work again.
            Exception: What an acceptor crashed with for the fifth time in ten seconds.
        """
        self._scope = anyio.CancelScope()
        self._stopped = anyio.Event()
        try:
            with self._scope:
                async with anyio.create_task_group() as task_group:
                    for acceptor, listening in zip(self.acceptors, self._sockets, strict=True):
                        task_group.start_soon(self._supervise, acceptor, listening)
        except ExceptionGroup as group:
            raise _first(group) from group
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stop accepting; clients stay in the kernel's queue."""
        if self._scope is not None:
            self._scope.cancel()
            await self._stopped.wait()

    async def _supervise(self, acceptor: Acceptor, listening: socket.socket) -> None:
        crashes: deque[float] = deque(maxlen=CRASHES)
        while True:
            try:
                await self._carrier.accept(listening)
            except OSError:
                raise
            except Exception:
                crashes.append(anyio.current_time())
                if len(crashes) == CRASHES and crashes[-1] - crashes[0] <= CRASH_WINDOW_S:
                    raise
                acceptor.restarts += 1
                logger.exception(
                    "listener %s: acceptor %d on %s crashed; starting it again",
                    self._name,
                    acceptor.id,
                    acceptor.address,
                )


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
