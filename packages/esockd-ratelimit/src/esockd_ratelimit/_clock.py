"""Time as buckets see it: whole nanoseconds that never run backwards, and a way to wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio

from ._errors import InvalidOption

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
    """The clock, kept from running backwards; one that never does is returned as it is, at no cost per call.

    Raises:
        InvalidOption: If the clock does not count in whole nanoseconds.
    """
    now = clock()
    if type(now) is not int:
        hint = "Use time.monotonic_ns or a clock like it."
        raise InvalidOption(f"it gives {now!r} where it should give whole nanoseconds", option="clock", hint=hint)
    if clock is time.monotonic_ns or clock is time.perf_counter_ns:
        return clock
    latest = now

    def clamped() -> int:
        nonlocal latest
        latest = max(latest, clock())
        return latest

    return clamped


async def wait_until(clock: Clock, deadline_ns: int | None, event: Event) -> None:
    """Wait for the event, at most until the clock shows `deadline_ns`; None for no limit."""
    alarm: object = clock
    if deadline_ns is None:
        await event.wait()
    elif isinstance(alarm, Alarm):
        with alarm.wake_at(deadline_ns, event.set):
            await event.wait()
    else:
        with anyio.move_on_after((deadline_ns - clock()) / 1e9):
            await event.wait()
