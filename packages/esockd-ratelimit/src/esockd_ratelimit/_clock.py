"""Time as buckets see it: whole nanoseconds that never run backwards, and a way to sleep on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio

from ._errors import InvalidRateError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anyio import Event

Clock = Callable[[], int]


@runtime_checkable
class Alarm(Protocol):
    """A clock that wakes sleepers itself, such as `esockd_ratelimit.testing.FakeClock`."""

    def wake_at(self, deadline_ns: int, wake: Callable[[], object]) -> AbstractContextManager[None]:
        """Call `wake` once the clock shows `deadline_ns`, unless the context is left before."""
        ...


def forward_only(clock: Clock) -> Clock:
    """The clock, clamped so that it never runs backwards; one that cannot is returned as it is, at no cost a call.

    Raises:
        InvalidRateError: The clock does not count in whole nanoseconds.
    """
    now = clock()
    if type(now) is not int:
        raise InvalidRateError(f"a clock must give whole nanoseconds, as time.monotonic_ns does, not {now!r}")
    if clock is time.monotonic_ns or clock is time.perf_counter_ns:
        return clock
    latest = now

    def clamped() -> int:
        nonlocal latest
        latest = max(latest, clock())
        return latest

    return clamped


async def wait_until(clock: Clock, deadline_ns: int | None, event: Event) -> None:
    """Wait for the event, but no longer than until the clock shows `deadline_ns` (None: as long as it takes)."""
    alarm: object = clock
    if deadline_ns is None:
        await event.wait()
    elif isinstance(alarm, Alarm):
        with alarm.wake_at(deadline_ns, event.set):
            await event.wait()
    else:
        with anyio.move_on_after((deadline_ns - clock()) / 1e9):
            await event.wait()
