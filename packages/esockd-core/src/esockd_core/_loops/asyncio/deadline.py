"""`asyncio.timeout` without a timer of its own, which costs an eighth of a forwarded connection."""

from __future__ import annotations

from asyncio import CancelledError, Task, current_task
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from esockd_core._loops.asyncio.side import AsyncioSide


class Deadline:
    """Cancels what its block waits for after a time, or up to an eighth of it (at least a millisecond) later.

    Args:
        side: Has the event loop, and the rounds that look at the clock.
        timeout_s: The seconds.

    Raises:
        TimeoutError: At the end of the block, if it was cancelled for this and for nothing else.
    """

    __slots__ = ("_at", "_cancelling", "_has_passed", "_rounds", "_side", "_task")

    def __init__(self, side: AsyncioSide, timeout_s: float) -> None:
        self._side = side
        self._at = side.loop.time() + timeout_s
        self._has_passed = False
        self._rounds = side.rounds(timeout_s)
        self._task = task = cast("Task[Any]", current_task(side.loop))
        self._cancelling = task.cancelling()

    def look(self) -> None:
        """Look at the clock."""
        if self._side.loop.time() >= self._at:
            self._has_passed = True
            self._rounds.discard(self)
            self._task.cancel()

    def __enter__(self) -> Self:
        """Begin to look at the clock."""
        self._rounds.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Turn a cancellation of this deadline into an error, as `asyncio.timeout` does."""
        self._rounds.discard(self)
        if self._has_passed and self._task.uncancel() <= self._cancelling and kind is CancelledError:
            raise TimeoutError from error
