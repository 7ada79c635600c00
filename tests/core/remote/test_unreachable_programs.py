"""A client of a control socket whose program is missing, has ended, does not answer, or speaks nonsense."""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import echo

from esockd_core import (
    ControlClient,
    ControlError,
    ControlServer,
    InstanceUnreachable,
    ListenerControl,
    StreamConnection,
    UnknownMethod,
    open_listener,
)
from esockd_core._remote import channel
from esockd_core._remote.wire import Inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import TaskStatus

pytestmark = pytest.mark.anyio

GREETING = {
    "protocol": 1, "version": "9.9", "name": "fake", "pid": 1, "started_at": 0.0, "read_only": False, "methods": [],
}  # fmt: skip


@asynccontextmanager
async def fake(path: Path, *lines: object, answers: Any = lambda _: ()) -> AsyncIterator[Path]:
    """A program that greets with these lines and answers each request with those that `answers` gives."""

    async def speak(connection: StreamConnection) -> None:
        inbox = Inbox()
        for line in lines:
            await connection.send(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        async for data in connection:
            for message in inbox.feed(data):
                for line in answers(message):
                    await connection.send(json.dumps(line).encode() + b"\n")

    async with open_listener("fake", f"unix:{path}", speak, shutdown_timeout=0):
        yield path


async def stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))


async def test_no_program_of_that_name_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InstanceUnreachable, match=r"no program has the control socket .*none\.sock") as caught:
        async with ControlClient(tmp_path / "none.sock"):
            pass
    assert caught.value.code == "unreachable"


async def test_a_program_that_has_ended_is_an_error_that_says_so(tmp_path: Path) -> None:
    await stale(tmp_path / "old.sock")
    with pytest.raises(InstanceUnreachable, match="has ended"):
        async with ControlClient(tmp_path / "old.sock"):
            pass


async def test_a_path_that_is_no_socket_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "note"
    await anyio.Path(path).write_text("no socket")
    with pytest.raises(InstanceUnreachable):
        async with ControlClient(path):
            pass


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([b"SSH-2.0-OpenSSH\r\n"], "does not speak as a control socket does"),
        ([{"hello": "world"}], "does not speak as a control socket does"),
        ([{"esockd": {"protocol": 1}}], "cannot be read"),
        ([b"x" * (1 << 20)], "does not speak as a control socket does"),
    ],
)
async def test_what_is_no_control_socket_is_an_error(lines: list[object], complaint: str, tmp_path: Path) -> None:
    async with fake(tmp_path / "s", *lines) as path:
        with pytest.raises(InstanceUnreachable, match=complaint):
            async with ControlClient(path):
                pass


async def test_a_program_that_hangs_up_at_once_is_an_error(tmp_path: Path) -> None:
    async def hang_up(_: StreamConnection) -> None:
        pass

    async with open_listener("fake", f"unix:{tmp_path / 's'}", hang_up):
        with pytest.raises(InstanceUnreachable, match="hung up"):
            async with ControlClient(tmp_path / "s"):
                pass


async def test_a_program_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async with fake(tmp_path / "s") as path:
        with pytest.raises(InstanceUnreachable, match=r"has not answered for 0\.05 seconds"):
            async with ControlClient(path, timeout=0.05):
                pass


async def test_a_program_that_does_not_answer_the_promise_to_look_only_is_given_up(tmp_path: Path) -> None:
    async with fake(tmp_path / "s", {"esockd": GREETING}) as path:
        with pytest.raises(InstanceUnreachable, match="has not answered"):
            async with ControlClient(path, read_only=True, timeout=0.05):
                pass


async def test_another_version_of_the_protocol_is_an_error_that_names_both(tmp_path: Path) -> None:
    async with fake(tmp_path / "s", {"esockd": {**GREETING, "protocol": 2}}) as path:
        with pytest.raises(UnknownMethod, match="version 2 of the control protocol, and this esockd version 1"):
            async with ControlClient(path):
                pass


async def test_an_older_program_says_which_method_it_does_not_know(tmp_path: Path) -> None:
    unknown = {"code": "unknown_method", "message": "this instance knows no method 'explain'", "reason": "no explain"}
    async with (
        fake(
            tmp_path / "s", {"esockd": GREETING}, answers=lambda asked: [{"id": asked["id"], "error": unknown}]
        ) as path,
        ControlClient(path) as client,
    ):
        with pytest.raises(UnknownMethod):
            await client.listener("echo").explain("::1")


async def test_fields_of_a_newer_program_are_passed_over(tmp_path: Path) -> None:
    def answers(asked: Any) -> list[object]:
        rules = {"rules": ["deny all"], "default": "allow", "hits": [5]}
        return [{"id": 99, "result": "nobody asked"}, {"id": asked["id"], "result": rules, "took_s": 0.1}]

    greeting = {"esockd": {**GREETING, "mood": "fine"}, "more": 1}
    async with fake(tmp_path / "s", greeting, answers=answers) as path, ControlClient(path) as client:
        assert (await client.listener("echo").get_access_rules()).rules == ("deny all",)


@pytest.mark.parametrize("result", [None, 5, {}, {"rules": [None], "default": "allow"}])
async def test_an_answer_that_cannot_be_read_is_an_error_of_that_call(result: object, tmp_path: Path) -> None:
    async with (
        fake(
            tmp_path / "s", {"esockd": GREETING}, answers=lambda asked: [{"id": asked["id"], "result": result}]
        ) as path,
        ControlClient(path) as client,
    ):
        for call in (client.listener("echo").get_access_rules(), client.listeners(), client.get_instance()):
            with pytest.raises(ControlError, match="cannot be read") as caught:
                await call
            assert caught.value.code == "bad_answer"


async def test_nonsense_amid_answers_loses_the_connection(tmp_path: Path) -> None:
    async with (
        fake(tmp_path / "s", {"esockd": GREETING}, answers=lambda _: [[]]) as path,
        ControlClient(path) as client,
    ):
        for _ in range(2):
            with pytest.raises(InstanceUnreachable, match="does not speak"):
                await client.listeners()


async def test_everybody_who_waits_is_told_when_the_program_ends(tmp_path: Path) -> None:
    path = tmp_path / "s"
    told: list[str] = []
    watching, ended = anyio.Event(), anyio.Event()

    async def program(*, task_status: TaskStatus[None]) -> None:
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, ControlServer(listener, path=path):
            task_status.started()
            await ended.wait()

    async def wait(listener: ListenerControl) -> None:
        with pytest.raises(InstanceUnreachable, match="ended"):
            await listener.wait_closed()
        told.append("who waits")

    async def watch(client: ControlClient) -> None:
        async with client.watch(10) as snapshots:
            await anext(snapshots)
            watching.set()
            with pytest.raises(InstanceUnreachable):
                await anext(snapshots)
        told.append("who watches")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            await tasks.start(program)
            async with ControlClient(path) as client:
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(wait, client.listener("echo"))
                    waiting.start_soon(watch, client)
                    await watching.wait()
                    ended.set()
                assert sorted(told) == ["who waits", "who watches"]
                with pytest.raises(InstanceUnreachable):
                    await client.listeners()


async def test_a_snapshot_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    def answers(asked: Any) -> list[object]:
        return [{"id": asked["id"], "event": {"at": "noon"}}]

    async with (
        fake(tmp_path / "s", {"esockd": GREETING}, answers=answers) as path,
        ControlClient(path) as client,
        client.watch() as snapshots,
    ):
        with pytest.raises(ControlError, match="cannot be read"):
            await anext(snapshots)


async def test_a_program_that_takes_no_requests_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SEND_TIMEOUT_S", 0.05)

    async def read_nothing(connection: StreamConnection) -> None:
        await connection.send(json.dumps({"esockd": GREETING}).encode() + b"\n")
        await anyio.sleep_forever()

    async with (
        open_listener("fake", f"unix:{tmp_path / 's'}", read_nothing, shutdown_timeout=0),
        ControlClient(tmp_path / "s") as client,
    ):
        with pytest.raises(InstanceUnreachable, match="took no request for"):
            await client.listener("echo").replace_rules(*["deny 10.0.0.0/8"] * 100_000)
        with pytest.raises(InstanceUnreachable):
            await client.listeners()


async def test_a_client_that_is_not_connected_says_so(tmp_path: Path) -> None:
    client = ControlClient(tmp_path / "s")
    with pytest.raises(RuntimeError, match="not connected"):
        client.listener("echo")
    with pytest.raises(RuntimeError, match="not connected"):
        _ = client.greeting
