"""The client of a control socket, beside other tasks and other clients."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, until

from esockd_core import (
    ControlClient,
    ControlError,
    ControlServer,
    InvalidOption,
    Server,
    UnknownListener,
    UnknownMethod,
)
from esockd_core._remote.wire import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.remote.conftest import Controlled

pytestmark = pytest.mark.anyio


async def test_a_newer_client_is_told_which_method_the_program_does_not_know(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            with pytest.raises(UnknownMethod, match="knows no method 'foretell'"):
                await client._connected().request("foretell", {}, listener="echo")


async def test_what_waits_keeps_nobody_else_waiting(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        assert control.path is not None
        [echoing] = server.listeners()
        with connect(echoing) as client:
            assert await answer(client) == b"hello"
            async with ControlClient(control.path) as remote, anyio.create_task_group() as tasks:
                listener = remote.listener("echo")
                tasks.start_soon(listener.drain, None)
                await until(lambda: echoing.state == "draining")
                assert (await listener.get_status()).state == "draining"
                await listener.kill()
        assert echoing.state == "closed"


async def test_a_call_that_is_cancelled_is_cancelled_on_the_other_side(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            for _ in range(100):  # more than may wait at once
                with anyio.move_on_after(0.001) as scope:
                    await client.listener("echo").wait_closed()
                assert scope.cancelled_caught
            assert await client.listeners()


async def test_several_tasks_use_one_client(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        assert control.path is not None
        results: list[object] = []

        async def deny(number: int) -> None:
            await listener.deny(f"10.0.0.{number}")
            results.append(await listener.test_rules(f"10.0.0.{number}"))

        async with ControlClient(control.path) as client, anyio.create_task_group() as tasks:
            listener = client.listener("echo")
            for number in range(50):
                tasks.start_soon(deny, number)
        assert len(results) == 50
        assert len(server.listener("echo").access_rules) == 50


async def test_snapshots_come_each_interval_until_they_are_not_wanted(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            async with client.watch(0.1) as snapshots:
                first = await anext(snapshots)
                second = await anext(snapshots)
            assert [each.status.name for each in first.listeners] == ["echo"]
            assert first.listeners[0].stats.accepted == 0
            assert first.instance.name == "edge"
            assert first.instance.uptime < second.instance.uptime
            assert (await client.get_instance()).pid == first.instance.pid


async def test_snapshots_are_asked_for_within_a_block(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            with pytest.raises(RuntimeError, match="async with"):
                await anext(client.watch())


async def test_a_slow_watcher_gets_the_newest_snapshot(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        assert control.path is not None
        async with ControlClient(control.path) as client, client.watch(0.1) as snapshots:
            await anext(snapshots)
            await server.listener("echo").suspend()
            waiting = snapshots._waiting
            assert waiting is not None
            await until(lambda: "suspended" in str(waiting._answer))
            assert (await anext(snapshots)).listeners[0].status.state == "suspended"


@pytest.mark.parametrize("interval", [0, 0.05, 5_000, "1", True, None])
async def test_an_interval_out_of_bounds_is_an_error(interval: Any, controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client, client.watch(interval) as snapshots:
            with pytest.raises(InvalidOption, match=r"0\.1 to 3600") as caught:
                await anext(snapshots)
            assert caught.value.option == "interval"


async def test_a_listener_is_found_by_name_and_by_address(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        assert control.path is not None
        other = await server.open("echo", "127.0.0.2:0", echo)
        async with ControlClient(control.path) as client:
            with pytest.raises(UnknownListener, match=r"2 listeners have the name echo: .*127\.0\.0\.1:0, 127"):
                await client.listener("echo").get_status()
            for address in ("127.0.0.2:0", f"127.0.0.2:{other.port}"):
                assert (await client.listener("echo", address).get_status()).port == other.port
            with pytest.raises(UnknownListener, match=r"no listener echo on 127\.0\.0\.3:1; open: echo"):
                await client.listener("echo", "127.0.0.3:1").get_status()
            with pytest.raises(UnknownListener, match="no listener nobody; open: echo"):
                await client.listener("nobody").get_status()
            with pytest.raises(UnknownListener, match="no listener echo on nonsense"):
                await client.listener("echo", "nonsense").get_status()


async def test_a_listener_that_moves_is_still_the_one(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            listener = client.listener("echo", "127.0.0.1:0")
            await listener.reopen(("127.0.0.2", 0))
            assert (await listener.get_status()).addresses[0].startswith("127.0.0.2:")
            assert repr(listener) == "<RemoteListener echo on 127.0.0.2:0>"


async def test_very_many_rules_travel_both_ways(controlled: Controlled) -> None:
    rules = [f"deny 10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(60_000)]
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            listener = client.listener("echo")
            await listener.replace_rules(*rules)
            assert list((await listener.get_access_rules()).rules) == rules
            assert (await listener.get_options())["access_rules"] == tuple(rules)


async def test_more_than_a_message_holds_is_not_sent(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            with pytest.raises(ControlError, match="beyond") as caught:
                await client.listener("echo").deny("x" * MAX_MESSAGE_BYTES)
            assert caught.value.code == "too_long"
            assert await client.listeners()


async def test_what_is_of_this_process_only_is_refused_before_it_is_sent(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as client:
            listener = client.listener("echo")
            with pytest.raises(InvalidOption, match="another process"):
                await listener.set_handler(echo)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption, match="another process"):
                await listener.set_options(load_hook=len)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption, match="another process"), socket.socket() as own:
                await listener.reopen(own)  # type: ignore[arg-type]


async def test_an_error_of_the_block_comes_out_as_it_is(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        with pytest.raises(ZeroDivisionError):
            async with ControlClient(control.path):
                _ = 1 / 0


async def test_a_server_that_drains_can_be_watched_until_its_end(tmp_path: Path) -> None:
    """The control socket around the server outlives its listeners."""
    server = Server()
    with anyio.fail_after(20):
        async with ControlServer(server, path=tmp_path / "s"), ControlClient(tmp_path / "s") as client:
            async with server:
                await server.open("echo", "127.0.0.1:0", echo)
                assert len(await client.listeners()) == 1
            assert await client.listeners() == ()
