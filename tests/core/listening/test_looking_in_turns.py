"""Counting the bytes of very many connections without holding up the event loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from esockd_core._listening.looking import TURN_CONNECTIONS, count_bytes, count_bytes_in_turns
from esockd_core._stats.counters import Counters

pytestmark = pytest.mark.anyio


@dataclass
class Open:
    """A connection, as far as its bytes are counted."""

    bytes_in: int = 1
    bytes_out: int = 2


class Connections(list[Open]):
    """A registry, as far as it is counted."""

    def every(self) -> list[Open]:
        return list(self)


@dataclass
class Listening:
    """What a listener knows of its connections."""

    registry: Connections = field(default_factory=Connections)
    counters: Counters = field(default_factory=Counters)

    def end(self, connection: Open) -> None:
        self.registry.remove(connection)
        self.counters.bytes_in += connection.bytes_in
        self.counters.bytes_out += connection.bytes_out


async def test_a_count_in_turns_is_that_of_one_moment_while_nothing_happens() -> None:
    site: Any = Listening(Connections(Open() for _ in range(3 * TURN_CONNECTIONS + 1)), Counters(bytes_in=7))
    assert await count_bytes_in_turns(site) == count_bytes(site) == (7 + len(site.registry), 2 * len(site.registry))


async def test_connections_that_end_and_come_meanwhile_are_counted_once_or_later() -> None:
    site = Listening(Connections(Open() for _ in range(4 * TURN_CONNECTIONS)))
    counted: list[tuple[int, int]] = []

    async def count() -> None:
        for _ in range(3):
            counted.append(count_bytes(cast("Any", site)))
            counted.append(await count_bytes_in_turns(cast("Any", site)))
            counted.append(count_bytes(cast("Any", site)))

    async def live() -> None:
        while True:
            for connection in (site.registry[0], site.registry[-1]):
                connection.bytes_in += 5
                site.end(connection)
            site.registry.append(Open())
            await checkpoint()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live)
            await count()
            tasks.cancel_scope.cancel()
    assert counted == sorted(counted)


async def test_other_tasks_run_while_many_connections_are_counted() -> None:
    site: Any = Listening(Connections(Open() for _ in range(4 * TURN_CONNECTIONS)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await checkpoint()
            before = turns
            await count_bytes_in_turns(site)
            assert turns > before
            tasks.cancel_scope.cancel()
