"""How many descriptors are free, and how many are to stay so."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from esockd_core._platform import descriptors as _descriptors
from esockd_core._platform import process
from esockd_core._platform.descriptors import Descriptors, DescriptorWatch, count_descriptors


@pytest.mark.parametrize(("limit", "reserve"), [(100, 96), (1024, 96), (65_536, 4_096), (None, 96)])
def test_a_sixteenth_of_the_limit_is_kept_in_reserve(
    limit: int | None, reserve: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_descriptors, "open_file_limit", lambda: limit)
    assert count_descriptors().reserve == reserve


@pytest.mark.parametrize("method", ["size", "listing"])
def test_what_is_open_is_counted(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "listing":  # /proc/self/fd of an older kernel, or /dev/fd of macOS
        monkeypatch.setattr(process, "OPEN_FILES", f"/proc/{os.getpid()}/fd")
    monkeypatch.setattr(_descriptors, "open_file_limit", lambda: 100_000)
    before = count_descriptors().free
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.socket())
        assert count_descriptors().free == before - 10


@pytest.mark.parametrize("place", [None, "/nowhere"])
def test_where_it_cannot_be_told_none_are_free(place: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OPEN_FILES", place)
    monkeypatch.setattr(_descriptors, "open_file_limit", lambda: 1024)
    assert count_descriptors() == Descriptors(0, 96)
    assert count_descriptors().are_scarce


def test_without_a_limit_they_are_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descriptors, "open_file_limit", lambda: None)
    assert count_descriptors().are_plenty


@pytest.mark.parametrize(("free", "scarce", "plenty"), [(95, True, False), (96, False, False), (192, False, True)])
def test_scarce_and_plenty_are_apart(free: int, scarce: bool, plenty: bool) -> None:
    assert (Descriptors(free, 96).are_scarce, Descriptors(free, 96).are_plenty) == (scarce, plenty)


def test_a_look_at_many_buys_more_accepts_than_one_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    free = 1_096
    monkeypatch.setattr(_descriptors, "count_descriptors", lambda: Descriptors(free, 96))
    watch = DescriptorWatch(lambda: calls.append(free))
    watch.look()
    assert (watch.accepts_until_look, calls) == (250, [])
    free = 136
    watch.look()
    assert (watch.accepts_until_look, calls) == (10, [])
    free = 50
    watch.look()
    assert calls == [50]
