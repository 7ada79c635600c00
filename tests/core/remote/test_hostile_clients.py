"""Slow, greedy and hostile clients of a control socket: they hurt themselves and nobody else."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import answer, connect, until
from tests.core.remote.conftest import by_hand

from esockd_core import ControlClient, UnixOptions
from esockd_core._remote import session
from esockd_core._remote.pace import Pace
from esockd_core._remote.wire import MAX_LINE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.remote.conftest import Controlled

    from esockd_core import ControlServer, Server

pytestmark = pytest.mark.anyio


async def still_served(server: Server, control: ControlServer) -> None:
    """Another client of the socket, and one of the listener."""
    assert control.path is not None
    async with ControlClient(control.path) as client:
        assert await client.listeners()
    with connect(server.listener("echo")) as plain:
        assert await answer(plain) == b"hello"


@pytest.mark.parametrize(
    "line", [b"hello", b"[]", b"{}", b'{"id":1}', b'{"id":1,"method":5}', b'{"method":"listeners"}']
)
async def test_a_request_that_says_nothing_is_answered_so_and_the_next_one_is_served(
    line: bytes, controlled: Controlled
) -> None:
    async with controlled() as (_, control), by_hand(control.path) as client:
        await client.stream.send(line + b"\n")
        assert (await client.line())["error"]["code"] == "invalid_request"
        assert "result" in await client.ask("get_stats")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"method": "get_stats", "listener": None}, "invalid_option"),
        ({"method": "get_stats", "listener": ["echo"]}, "invalid_option"),
        ({"method": "get_stats", "listener": "echo", "address": 5}, "invalid_option"),
        ({"method": "get_stats", "listener": "echo", "params": []}, "invalid_request"),
        ({"method": "kill_connection", "listener": "echo", "params": {"connection_id": []}}, "invalid_option"),
        ({"method": "set_options", "listener": "echo", "params": {"changes": {"tcp": 5}}}, "invalid_option"),
        ({"method": "__init__", "listener": "echo"}, "unknown_method"),
        ({"method": "x" * 10_000, "listener": "echo"}, "unknown_method"),
        ({"method": "deny", "listener": "echo", "params": {"network": [1] * 10_000}}, "invalid_option"),
        ({"method": "deny", "listener": "echo", "params": {"network": "x" * 10_000}}, "invalid_option"),
        ({"method": "replace_rules", "listener": "echo", "params": {"rules": ["x"] * 10_000}}, "invalid_option"),
        ({"method": "get_stats", "listener": "x" * 10_000}, "unknown_listener"),
    ],
)
async def test_a_bad_request_is_an_error_with_a_code(
    request_: dict[str, Any], code: str, controlled: Controlled
) -> None:
    async with controlled() as (_, control), by_hand(control.path) as client:
        await client.tell({"id": "mine", **request_})
        answered = await client.line()
        assert (answered["id"], answered["error"]["code"]) == ("mine", code)
        assert len(json.dumps(answered)) < 2_000
        assert "result" in await client.ask("get_stats")


async def test_a_line_without_an_end_is_cut_off(controlled: Controlled) -> None:
    async with controlled() as (server, control), by_hand(control.path) as client:
        with pytest.raises(anyio.BrokenResourceError):  # noqa: PT012 (it may break anywhere in it)
            while True:
                await client.stream.send(b"x" * (MAX_LINE_BYTES // 8))
        await still_served(server, control)


async def test_a_client_that_may_only_look_may_send_only_little(controlled: Controlled, tmp_path: Path) -> None:
    async with controlled(read_only=UnixOptions(mode=0o660)), by_hand(tmp_path / "edge.ro.sock") as client:
        await client.stream.send(b"x" * 65_536)
        assert (await client.line())["error"]["code"] == "too_long"
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await client.stream.receive()


async def test_a_client_that_never_reads_is_ended_and_holds_little(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        [socket_listener] = control._servers.listeners()
        await socket_listener.set_options(send_timeout=0.3)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(control.path))
            deaf.setblocking(False)
            question = json.dumps({"id": 1, "method": "get_options", "listener": "echo"}).encode() + b"\n"
            sent = 0
            with pytest.raises(BlockingIOError):  # noqa: PT012 (it takes some until nothing is read any more)
                while sent < 50_000_000:
                    await anyio.lowlevel.checkpoint()
                    sent += deaf.send(question * 100)
            await until(lambda: len(socket_listener.connections) == 1)
            [connection] = socket_listener.connections
            assert connection.bytes_out < 1_000_000
            await still_served(server, control)
            await until(lambda: socket_listener.stats().shutdown_counts.get("send_timeout") == 1)


async def test_a_client_has_a_bounded_number_of_requests_that_wait(controlled: Controlled) -> None:
    async with controlled() as (server, control), by_hand(control.path) as client:
        for number in range(session.MAX_OUTSTANDING):
            await client.tell({"id": number, "method": "wait_closed", "listener": "echo"})
        await client.tell({"id": "more", "method": "subscribe"})
        assert (await client.line())["error"]["code"] == "busy"
        await client.tell({"id": "cancel", "method": "cancel", "params": {"id": 0}})
        assert await client.line() == {"id": "cancel", "result": True}
        await client.tell({"id": "cancel", "method": "cancel", "params": {"id": 0}})
        assert await client.line() == {"id": "cancel", "result": False}
        await client.tell({"id": 1, "method": "wait_closed", "listener": "echo"})
        assert "not done yet" in (await client.line())["error"]["message"]
        await client.tell({"id": "more", "method": "subscribe"})
        assert "event" in await client.line()
        await still_served(server, control)


async def test_an_answer_beyond_the_bound_is_an_error(controlled: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core._remote.wire.MAX_MESSAGE_BYTES", 5_000)
    monkeypatch.setattr("esockd_core._remote.wire.MAX_LINE_BYTES", 4_000)
    async with controlled() as (server, control), by_hand(control.path) as client:
        server.listener("echo").access_rules.replace(f"deny 10.{number}.0.0/16" for number in range(250))
        assert (await client.ask("get_access_rules"))["error"]["code"] == "too_long"
        assert "result" in await client.ask("get_stats")


async def test_a_request_that_fails_by_a_fault_of_ours_is_an_error_and_a_line_in_the_log(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with controlled() as (server, control), by_hand(control.path) as client:
        monkeypatch.setattr(server.listener("echo"), "get_stats", lambda: 1 / 0)
        answered = (await client.ask("get_stats"))["error"]
        assert answered["code"] == "internal"
        assert "ZeroDivisionError" in answered["message"]
        assert "a request failed" in caplog.text
        assert "result" in await client.ask("get_status")


async def test_a_client_that_leaves_while_it_waits_leaves_nothing(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        [socket_listener] = control._servers.listeners()
        for _ in range(20):
            async with by_hand(control.path) as client:
                await client.tell({"id": 1, "method": "wait_closed", "listener": "echo"})
                await client.tell({"id": 2, "method": "subscribe", "params": {"interval": 0.1}})
                assert "event" in await client.line()
        await until(lambda: not socket_listener.connections)
        assert set(socket_listener.stats().shutdown_counts) <= {"normal", "reset"}
        await still_served(server, control)


async def test_a_listener_that_drains_goes_on_when_who_asked_for_it_leaves(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        echoing = server.listener("echo")
        with connect(echoing) as plain:
            assert await answer(plain) == b"hello"
            async with by_hand(control.path) as client:
                await client.tell({"id": 1, "method": "drain", "listener": "echo", "params": {"timeout": None}})
                await until(lambda: echoing.state == "draining")
            await until(lambda: not control._servers.listeners()[0].connections)
            assert echoing.state == "draining"
            plain.close()
            await echoing.wait_closed()


async def test_whoever_waits_for_the_end_of_a_listener_is_told_before_the_program_ends(controlled: Controlled) -> None:
    async with controlled() as (_, control), anyio.create_task_group() as tasks:
        assert control.path is not None
        closed = anyio.Event()

        async def close(client: ControlClient) -> None:
            await client.listener("echo").close()
            closed.set()

        client = ControlClient(control.path)
        async with client:
            tasks.start_soon(close, client)
            await closed.wait()


async def test_clients_beyond_count_are_served_at_the_same_time(controlled: Controlled) -> None:
    async with controlled() as (server, control), anyio.create_task_group() as tasks:
        assert control.path is not None
        answered = []

        async def look(path: Path) -> None:
            async with ControlClient(path) as client:
                answered.append(await client.listeners())

        for _ in range(100):
            tasks.start_soon(look, control.path)
        await until(lambda: len(answered) == 100)
        with ExitStack() as silent:
            for _ in range(20):
                silent.enter_context(socket.socket(socket.AF_UNIX)).connect(str(control.path))
            await still_served(server, control)


async def test_changes_of_one_listener_are_made_one_after_the_other(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled() as (server, control):
        assert control.path is not None
        listener, at_once, most = server.listener("echo"), 0, 0

        async def deny(network: str) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await anyio.lowlevel.checkpoint()
            at_once -= 1
            listener.access_rules.prepend(("deny", network))

        monkeypatch.setattr(listener, "deny", deny)
        path = control.path

        async def change(number: int) -> None:
            async with ControlClient(path) as client:
                await client.listener("echo").deny(f"10.0.0.{number}")

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(change, number)
        assert (len(listener.access_rules), most) == (10, 1)


async def test_work_for_control_clients_is_kept_to_a_share_of_the_time() -> None:
    pace = Pace(share=0.5)
    began = anyio.current_time()
    for _ in range(20):
        await pace.wait()
        with pace.spending():
            busy_until = anyio.current_time() + 0.02
            while anyio.current_time() < busy_until:
                pass
    # 0.4 s of work: of the 0.8 s that it takes at half of the time, the first 0.25 s are not waited for.
    assert anyio.current_time() - began >= 0.5
