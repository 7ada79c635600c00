"""How long a process has not answered, of the time in which it could have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_core._platform.run_queue import waited_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOK_AGAIN_S: Final = 0.1  # whether it could have answered by now
MOST_S: Final = 60.0  # by the clock, however busy the machine is


class Silence:
    """How long a process has been silent.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began_at = anyio.current_time()
        self._waited_s = self._waited()

    def _waited(self) -> float:
        return waited_s(self._pid) + waited_s(os.getpid())

    def seconds(self) -> float:
        """For how long, without the time for which no processor was free, for it or for this process to read."""
        return anyio.current_time() - self._began_at - max(self._waited() - self._waited_s, 0.0)

    async def lasts(self, for_s: float) -> None:
        """Return once it has lasted for this number of seconds."""
        while (left_s := for_s - self.seconds()) > 0:  # noqa: ASYNC110 (only time is waited for)
            await anyio.sleep(max(left_s, LOOK_AGAIN_S))


async def answered(pid: int, for_s: float, ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask a process for something, and return when it has answered.

    Raises:
        TimeoutError: If it does not answer for this number of seconds in which it could, or for `MOST_S` at all.
        Exception: What asking raises.
    """
    silence, failure, has_answered = Silence(pid), None, False
    with anyio.move_on_after(MOST_S):
        async with anyio.create_task_group() as asking:

            async def expire() -> None:
                await silence.lasts(for_s)
                asking.cancel_scope.cancel()

            asking.start_soon(expire)
            try:
                await ask()
                has_answered = True
            except Exception as error:  # noqa: BLE001 (raised outside of the group)
                failure = error
            asking.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not has_answered:
        raise TimeoutError
