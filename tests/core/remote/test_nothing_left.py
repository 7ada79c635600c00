"""A thousand clients and a hundred openings leave no descriptor, task or thread behind."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import until

from esockd_core import ControlClient, ControlServer, Server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.remote.conftest import Controlled

pytestmark = pytest.mark.anyio


class Held(NamedTuple):
    """What this process has at one moment."""

    descriptors: int
    tasks: int
    threads: int

    def is_within(self, before: Held) -> bool:
        return all(now <= then for now, then in zip(self, before, strict=True))


def held() -> Held:
    gc.collect()
    return Held(len(os.listdir("/proc/self/fd")), len(anyio.get_running_tasks()), threading.active_count())  # noqa: PTH208


@pytest.mark.slow
async def test_a_thousand_clients_leave_nothing_behind(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        path = control.path
        assert path is not None

        async def visit(count: int) -> None:
            for number in range(count):
                async with ControlClient(path, read_only=number % 2 == 0) as client:
                    assert await client.listeners()
                    if number % 10 == 0:
                        async with client.watch(0.1) as snapshots:
                            await anext(snapshots)

        await visit(5)
        [socket_listener] = control._servers.listeners()
        await until(lambda: not socket_listener.connections)
        await checkpoint()
        before = held()
        for _ in range(25):
            async with anyio.create_task_group() as visitors:
                for _ in range(4):
                    visitors.start_soon(visit, 10)
        await until(lambda: not socket_listener.connections)
        await until(lambda: held().is_within(before))


async def open_and_close(server: Server, path: Path) -> None:
    async with ControlServer(server, path=path) as control, ControlClient(path) as client:
        assert control.path == path
        await client.listeners()


@pytest.mark.slow
async def test_a_hundred_openings_leave_nothing_behind(tmp_path: Path) -> None:
    server = Server()
    with anyio.fail_after(50):
        async with server:
            await open_and_close(server, tmp_path / "s")
            before = held()
            for _ in range(100):
                await open_and_close(server, tmp_path / "s")
            await until(lambda: held().is_within(before))
        assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
