"""One timer that calls many members again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from esockd_core._loops.asyncio.rounds import CHUNK, Rounds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Loop:
    """An event loop whose clock and passes the test moves."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.later: list[tuple[float, Callable[[], object]]] = []

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.soon.append(lambda: callback(*args))

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        self.later.append((delay_s, lambda: callback(*args)))

    def next_pass(self) -> None:
        ready, self.soon = self.soon, []
        for call in ready:
            call()

    def next_timers(self) -> list[float]:
        """Let every timer fire that is set now; give when each was due."""
        due, self.later = self.later, []
        for _, call in due:
            call()
        return [delay_s for delay_s, _ in due]


class Member:
    def __init__(self, rounds: Rounds, *, lasts: int = 10**6) -> None:
        self.rounds = rounds
        self.lasts = lasts
        self.looks = 0
        rounds.add(self)

    def look(self) -> None:
        self.looks += 1
        if self.looks == self.lasts:
            self.rounds.discard(self)


def rounds_on(loop: Loop) -> Rounds:
    return Rounds(cast("asyncio.AbstractEventLoop", loop), 2.5)


def test_every_member_is_called_once_in_each_interval_by_one_timer() -> None:
    loop = Loop()
    rounds = rounds_on(loop)
    members = [Member(rounds) for _ in range(3)]
    for number in range(1, 4):
        assert loop.next_timers() == [2.5]
        assert [member.looks for member in members] == [number] * 3


def test_the_timer_ends_with_the_last_member_and_begins_again_with_the_next() -> None:
    loop = Loop()
    rounds = rounds_on(loop)
    first = Member(rounds, lasts=1)
    loop.next_timers()
    loop.next_timers()
    assert loop.later == []
    second = Member(rounds)
    assert loop.next_timers() == [2.5]
    assert (first.looks, second.looks) == (1, 1)


def test_the_event_loop_gets_its_turn_between_many_members() -> None:
    loop = Loop()
    rounds = rounds_on(loop)
    members = [Member(rounds) for _ in range(CHUNK + 1)]
    loop.next_timers()
    assert sum(member.looks for member in members) == CHUNK
    assert loop.later == []
    loop.next_pass()
    assert [member.looks for member in members] == [1] * len(members)
    assert len(loop.later) == 1


def test_a_member_that_another_one_ends_is_not_called() -> None:
    loop = Loop()
    rounds = rounds_on(loop)

    class Ending(Member):
        def look(self) -> None:
            super().look()
            for other in members:
                rounds.discard(other)

    members = [Ending(rounds), Ending(rounds)]
    loop.next_timers()
    assert sum(member.looks for member in members) == 1


def test_an_error_of_one_member_ends_no_later_round() -> None:
    loop = Loop()
    rounds = rounds_on(loop)

    class Failing(Member):
        def look(self) -> None:
            super().look()
            raise OSError("a peer is gone")

    member = Failing(rounds)
    for _ in range(2):
        with pytest.raises(OSError, match="a peer is gone"):
            loop.next_timers()
    assert member.looks == 2
