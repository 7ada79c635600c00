"""The acceptors of a listener: so many for each socket, each started again when it crashes."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from esockd_core._sockets import ListeningSockets
    from esockd_core._transports import Carrier

logger = logging.getLogger("esockd_core")

RESTART_PAUSE_S: Final = 0.1  # so that a passing fault does not burn all of an acceptor's lives at once
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
        # An event loop lets one task wait for a descriptor, so each acceptor has its own for the same socket.
        with ExitStack() as stack:  # all of them or none: a descriptor more may be too many
            self._sockets = [stack.enter_context(sock.dup()) for sock in sockets.sockets for _ in range(per_socket)]
            stack.pop_all()
        addresses = [address for address in sockets.addresses for _ in range(per_socket)]
        self.acceptors = [Acceptor(number, address) for number, address in enumerate(addresses)]
        self._scope = anyio.CancelScope()
        self._stopped = anyio.Event()
        self._stopped.set()

    def start(self, task_group: TaskGroup, on_failure: Callable[[Exception], None]) -> None:
        """Accept until `stop` is called.

        Args:
            task_group: Where the acceptors run.
            on_failure: Called when they cannot go on: with the error of a listening socket that will not work again,
                or with what an acceptor crashed with for the fifth time in ten seconds.
        """
        # Made here and not by the task: who stops before the task ran must stop it all the same.
        self._scope, self._stopped = anyio.CancelScope(), anyio.Event()
        task_group.start_soon(self._run, self._scope, self._stopped, on_failure)

    async def stop(self) -> None:
        """Stop accepting; clients stay in the kernel's queue."""
        self._scope.cancel()
        await self._stopped.wait()

    def close(self) -> None:
        """Close the acceptors' descriptors, once they stopped."""
        for listening in self._sockets:
            listening.close()

    async def _run(
        self, scope: anyio.CancelScope, stopped: anyio.Event, on_failure: Callable[[Exception], None]
    ) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as task_group:
                    for acceptor, listening in zip(self.acceptors, self._sockets, strict=True):
                        task_group.start_soon(self._supervise, acceptor, listening)
        except ExceptionGroup as group:
            on_failure(_first(group))
        finally:
            stopped.set()

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
                await anyio.sleep(RESTART_PAUSE_S)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
