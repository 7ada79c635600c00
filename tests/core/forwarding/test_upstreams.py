"""Which upstream is tried first, and which after one failed."""

from __future__ import annotations

import pytest

from esockd_core import parse_address
from esockd_core._forwarding.upstreams import Upstream, Upstreams


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("esockd_core._forwarding.upstreams.time.monotonic", clock)
    return clock


def upstreams_of(*names: str) -> tuple[list[Upstream], Upstreams]:
    every = [Upstream(parse_address(f"{name}:1"), None) for name in names]
    return every, Upstreams(every, 5.0)


def names(upstreams: Upstreams) -> str:
    return "".join(upstream.address.host or "" for upstream in upstreams.in_order())


def test_an_upstream_that_failed_stands_behind_the_others_for_a_second(clock: Clock) -> None:
    (a, _, _), upstreams = upstreams_of("a", "b", "c")
    assert names(upstreams) == "abc"
    a.failed()
    assert names(upstreams) == "bca"
    clock.now += 0.999
    assert names(upstreams) == "bca"
    clock.now += 0.001
    assert names(upstreams) == "abc"  # this client tries it
    assert names(upstreams) == "bca"  # and these go on without until more is known
    clock.now += 5.0
    assert names(upstreams) == "abc"
    a.is_failing = False
    assert names(upstreams) == "abc"
    assert names(upstreams) == "abc"


def test_when_all_failed_all_are_tried(clock: Clock) -> None:
    every, upstreams = upstreams_of("a", "b")
    for upstream in every:
        upstream.failed()
    assert names(upstreams) == "ab"
