"""What keeps a reload from being put in force is told with its line, and what was in force is in force again."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.patience import PATIENCE_S
from tests.ports import steady_port

from esockd_cli.config.hosting import ServerHosting
from esockd_cli.config.problems import BadConfig
from esockd_cli.config.read import read_config
from esockd_cli.config.reloading import Reloader
from esockd_core import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


def table(name: str, port: int, *more: str) -> str:
    return "\n".join([f"[listeners.{name}]", 'handler = "echo"', f'listen = "127.0.0.1:{port}"', *more, ""])


class Edge:
    """A file, and the listeners that were opened from it."""

    def __init__(self, file: Path, server: Server) -> None:
        self.file = file
        self.server = server
        self.begun: list[Any] = []
        configuration = read_config(str(file))
        self.openings = configuration.openings
        self.reloader = Reloader(configuration, ServerHosting(server), self.begun.append, lambda _: None)


@asynccontextmanager
async def serving(file: Path, text: str) -> AsyncIterator[Edge]:
    file.write_text(text)  # noqa: ASYNC240
    with anyio.fail_after(PATIENCE_S):
        async with Server() as server:
            edge = Edge(file, server)
            for each in edge.openings:
                await server.open(each.name, each.address, each.handler, each.options)
            yield edge


async def test_a_listener_that_does_not_leave_its_address_in_time_is_served_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esockd_cli.config.reloading.GIVE_WAY_S", 0.05)
    port = steady_port()
    async with serving(tmp_path / "edge.toml", table("one", port)) as edge:
        edge.file.write_text(table("two", port))
        plan = await edge.reloader.plan()
        with pytest.raises(BadConfig) as refused:
            await edge.reloader.apply(plan)  # nobody begins to end it
        (problem,) = refused.value.problems
        assert problem.message == f"listener one has not left 127.0.0.1:{port} within 0.05 seconds."
        assert (problem.line, problem.code) == (3, "busy")
        (listener,) = edge.server.listeners()
        assert (listener.name, listener.state) == ("one", "running")
        assert edge.begun == [listener]


async def test_a_listener_that_is_closed_by_hand_meanwhile_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path / "edge.toml", table("one", 0) + table("two", 0)) as edge:
        edge.file.write_text(table("one", 0, "max_connections = 7") + table("two", 0, "max_connections = 7"))
        plan = await edge.reloader.plan()
        one, two = edge.server.listeners()
        await two.close()
        with pytest.raises(BadConfig) as refused:
            await edge.reloader.apply(plan)
        (problem,) = refused.value.problems
        assert (problem.key, problem.line) == ("listeners.two", 5)
        assert problem.message.startswith("no listener two on 127.0.0.1:0")
        assert one.options.max_connections == 1024
