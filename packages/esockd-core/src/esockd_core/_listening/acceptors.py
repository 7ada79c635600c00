"""The acceptors of a listener: a number of them for each socket, each started again when it crashes."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from esockd_core._errors import CannotBind
from esockd_core.control.values import Acceptor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from esockd_core._loops.carrier import Carrier
    from esockd_core._sockets.opening import ListeningSockets

logger = logging.getLogger("esockd_core")

RESTART_PAUSE_S: Final = 0.1  # so that a passing fault does not burn all of an acceptor's lives at once
CRASHES: Final = 5  # of one acceptor ...
CRASH_WINDOW_S: Final = 10.0  # ... within this time are the listener's end


class Acceptors:
    """Runs the acceptors of a listener, and stops and starts them without touching a connection or a queued client."""

    def __init__(self, name: str, sockets: ListeningSockets, per_socket: int) -> None:
        """Take a descriptor for each acceptor; `close` gives them back.

        Raises:
            CannotBind: If there are not enough descriptors left.
        """
        self._name = name
        # An event loop lets one task wait for a descriptor, so each acceptor has its own for the same socket.
        with ExitStack() as stack:  # all of them or none: a descriptor more may be too many
            try:
                self._sockets = [stack.enter_context(sock.dup()) for sock in sockets.sockets for _ in range(per_socket)]
            except OSError as error:
                number = per_socket * len(sockets.sockets)
                reason = f"{error.strerror} (one for each acceptor: {number})"
                text = f"cannot listen on {' and '.join(sockets.addresses)}: {reason}"
                raise CannotBind(error.errno, text, "Raise the limit (ulimit -n), or set fewer acceptors") from error
            stack.pop_all()
        addresses = [address for address in sockets.names for _ in range(per_socket)]
        self.acceptors = [Acceptor(number, address) for number, address in enumerate(addresses)]
        self._scope = anyio.CancelScope()
        self._stopped = anyio.Event()
        self._stopped.set()

    def start(self, carrier: Carrier, task_group: TaskGroup, on_failure: Callable[[Exception], None]) -> None:
        """Accept until `stop` is called.

        Args:
            carrier: Accepts on the event loop.
            task_group: Runs the acceptors.
            on_failure: Called when they cannot continue: with the error of a listening socket that will not work
                again, or with the error of an acceptor that has crashed for the fifth time in ten seconds.
        """
        # Made here and not by the task: a call of `stop` before the task has run must stop it too.
        self._scope, self._stopped = anyio.CancelScope(), anyio.Event()
        task_group.start_soon(self._run, carrier, self._scope, self._stopped, on_failure)

    async def stop(self) -> None:
        """Stop accepting. Clients stay in the kernel's queue."""
        self._scope.cancel()
        await self._stopped.wait()

    def close(self) -> None:
        """Close the acceptors' descriptors, after they have stopped."""
        for listening in self._sockets:
            listening.close()

    async def _run(
        self,
        carrier: Carrier,
        scope: anyio.CancelScope,
        stopped: anyio.Event,
        on_failure: Callable[[Exception], None],
    ) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as task_group:
                    for acceptor, listening in zip(self.acceptors, self._sockets, strict=True):
                        task_group.start_soon(self._supervise, carrier, acceptor, listening)
        except ExceptionGroup as group:
            on_failure(_first(group))
        finally:
            stopped.set()

    async def _supervise(self, carrier: Carrier, acceptor: Acceptor, listening: socket.socket) -> None:
        crashes: deque[float] = deque(maxlen=CRASHES)
        while True:
            try:
                await carrier.accept(listening)
            except OSError:
                raise
            except Exception:
                crashes.append(anyio.current_time())
                if len(crashes) == CRASHES and crashes[-1] - crashes[0] <= CRASH_WINDOW_S:
                    raise
                self.acceptors[acceptor.id] = acceptor = replace(acceptor, restarts=acceptor.restarts + 1)
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
