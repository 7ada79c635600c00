"""The control socket itself: where it is, who may use it, and what it costs a program that cannot have one."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import echo, until
from tests.core.remote.conftest import by_hand

from esockd_core import (
    ControlClient,
    ControlDenied,
    ControlError,
    ControlServer,
    InvalidOption,
    Server,
    UnixOptions,
    control_folder,
    control_path,
    find_control_sockets,
    open_listener,
)
from esockd_core._platform.peer_process import PeerProcess, peer_process

if TYPE_CHECKING:
    from tests.core.remote.conftest import Controlled

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of control sockets, not made yet."""
    folder = tmp_path / "run"
    monkeypatch.setenv("ESOCKD_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def made(folder: Path) -> Path:
    """The same, made."""
    folder.mkdir(mode=0o700)
    return folder


def mode(path: Path | None) -> int:
    assert path is not None
    return stat.S_IMODE(path.lstat().st_mode)


async def test_three_lines_switch_it_on(folder: Path) -> None:
    async with Server() as server, ControlServer(server, "chat"):
        await server.open("chat", "127.0.0.1:0", echo)
        async with ControlClient("chat") as client:
            assert [status.name for status in await client.listeners()] == ["chat"]


async def test_a_single_listener_has_one_too(folder: Path) -> None:
    async with (
        open_listener("echo", "127.0.0.1:0", echo) as listener,
        ControlServer(listener) as control,
        ControlClient(control.name) as client,
    ):
        assert (await client.listener("echo").get_status()).port == listener.port
        assert control.name.endswith(f"-{os.getpid()}")


async def test_socket_and_folder_are_for_their_owner_alone(folder: Path) -> None:
    async with Server() as server, ControlServer(server, "chat") as control:
        path = control.path
        assert path == folder / "chat.sock"
        assert (mode(path), mode(folder)) == (0o600, 0o700)
    assert [path async for path in anyio.Path(folder).iterdir()] == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ESOCKD_RUNTIME_DIR": "/a", "RUNTIME_DIRECTORY": "/b", "XDG_RUNTIME_DIR": "/tmp"}, "/a"),
        ({"RUNTIME_DIRECTORY": "/run/edge:/run/other", "XDG_RUNTIME_DIR": "/tmp"}, "/run/edge"),
        ({"XDG_RUNTIME_DIR": "/tmp"}, "/tmp/esockd"),
        ({"XDG_RUNTIME_DIR": "/run/user/of-somebody-who-left"}, f"/tmp/esockd-{os.geteuid()}"),
        ({"XDG_RUNTIME_DIR": f"/{'x' * 300}"}, f"/tmp/esockd-{os.geteuid()}"),
        ({"ESOCKD_RUNTIME_DIR": ""}, f"/tmp/esockd-{os.geteuid()}"),
        ({}, f"/tmp/esockd-{os.geteuid()}"),
    ],
)
def test_the_folder_is_named_by_the_environment(environment: dict[str, str], expected: str) -> None:
    assert control_folder(environment) == Path(expected)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "edge.ro", "edge.sock", "a b"])
def test_a_name_has_to_be_that_of_a_file(name: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        control_path(name)
    assert caught.value.option == "name"


async def test_a_name_that_another_program_has_gets_the_process_id(folder: Path) -> None:
    async with Server() as server, ControlServer(server, "chat") as first, ControlServer(server, "chat") as second:
        assert (first.name, second.name) == ("chat", f"chat-{os.getpid()}")
        assert set(find_control_sockets()) == {first.name, second.name}
        async with ControlClient("chat") as client, ControlClient(second.name) as other:
            assert (client.greeting.name, other.greeting.name) == (first.name, second.name)


async def test_a_stale_socket_is_replaced(made: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(made / "chat.sock"))
    async with Server() as server, ControlServer(server, "chat") as control:
        assert control.name == "chat"
        async with ControlClient("chat"):
            pass


def spoil_with_a_file(folder: Path) -> None:
    folder.write_text("in the way")


def spoil_with_a_link(folder: Path) -> None:
    folder.symlink_to("/tmp")


def spoil_with_write_permission(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def spoil_the_parent(folder: Path) -> None:
    os.environ["ESOCKD_RUNTIME_DIR"] = str(folder / "missing" / "deeper")


def spoil_the_owner(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder.mkdir()
    os.chown(folder, 12_345, 12_345)


def spoil_the_length(folder: Path) -> None:
    folder.mkdir()
    long = folder / ("x" * 100)
    long.mkdir(mode=0o700)
    os.environ["ESOCKD_RUNTIME_DIR"] = str(long)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_with_a_file,
        spoil_with_a_link,
        spoil_with_write_permission,
        spoil_the_parent,
        spoil_the_owner,
        spoil_the_length,
    ],
)
async def test_a_program_without_a_control_socket_goes_on_after_one_line_in_the_log(
    spoil: object, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(spoil)
    spoil(folder)
    with caplog.at_level(logging.INFO, "esockd_core"):
        async with Server() as server, ControlServer(server, "chat") as control:
            assert control.path is None
            await server.open("chat", "127.0.0.1:0", echo)
    [record] = [record for record in caplog.records if "control" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert record.getMessage().startswith("no control socket: ")


async def test_a_given_path_that_is_taken_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.sock"
    async with Server() as server, ControlServer(server, "one", path=path) as first:
        async with ControlServer(server, "two", path=path) as second:
            assert (first.path, second.path) == (path, None)
        assert "already in use" in caplog.text
        async with ControlClient(path) as client:
            assert client.greeting.name == "one"


async def test_a_control_socket_that_fails_does_not_end_the_program(
    controlled: Controlled, caplog: pytest.LogCaptureFixture
) -> None:
    async with controlled() as (server, control):
        [listener] = control._servers.listeners()
        listener._fail(OSError("the socket broke"))
        await until(lambda: not control._servers.listeners())
        [echoing] = server.listeners()
        assert echoing.state == "running"


@pytest.mark.parametrize("uid", [os.geteuid(), 0])
async def test_its_user_and_root_are_served(uid: int, controlled: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core._remote.server.peer_process", lambda _: PeerProcess(uid, 1))
    async with controlled() as (_, control), by_hand(control.path) as client:
        assert "result" in await client.ask("get_stats")


async def test_a_stranger_is_told_and_turned_away_although_the_file_let_him_in(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esockd_core._remote.server.peer_process", lambda _: PeerProcess(54_321, 1))
    async with controlled() as (_, control):
        assert control.path is not None
        with pytest.raises(ControlDenied, match="and root"):
            async with ControlClient(control.path):
                pytest.fail("it was let in")


async def test_the_kernel_says_who_connects(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(control.path))
            assert peer_process(client) == PeerProcess(os.geteuid(), os.getpid())
    with socket.socket(socket.AF_UNIX) as alone:
        assert peer_process(alone) is None or sys.platform == "linux"


async def test_a_read_only_client_may_look_and_change_nothing(controlled: Controlled) -> None:
    async with controlled() as (server, control):
        assert control.path is not None
        async with ControlClient(control.path, read_only=True) as client:
            assert client.greeting.read_only
            listener = client.listener("echo")
            assert (await listener.get_stats()).accepted == 0
            assert (await listener.plan_options(max_connections=5)).changes
            for change in (listener.suspend(), listener.kill(), listener.deny("all"), listener.set_options()):
                with pytest.raises(ControlDenied, match="read-only"):
                    await change
        [echoing] = server.listeners()
        assert (echoing.state, echoing.access_rules.rules) == ("running", ())


async def test_a_promise_to_look_only_cannot_be_taken_back(controlled: Controlled) -> None:
    async with controlled() as (_, control), by_hand(control.path) as client:
        assert (await client.ask("hello", read_only=True))["result"]["read_only"] is True
        assert (await client.ask("hello", read_only=False))["result"]["read_only"] is True
        assert (await client.ask("suspend"))["error"]["code"] == "denied"


async def test_a_second_socket_is_for_looking_only_with_a_mode_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server() as server, ControlServer(server, "chat", read_only=UnixOptions(mode=0o660)) as control:
        await server.open("echo", "127.0.0.1:0", echo)
        second = folder / "chat.ro.sock"
        assert (mode(control.path), mode(second)) == (0o600, 0o660)
        assert list(find_control_sockets()) == ["chat"]
        monkeypatch.setattr("esockd_core._remote.server.peer_process", lambda _: PeerProcess(54_321, 1))
        async with ControlClient(second) as stranger:
            assert stranger.greeting.read_only
            assert await stranger.listeners()
            with pytest.raises(ControlDenied):
                await stranger.listener("echo").suspend()


async def test_whoever_may_not_use_the_first_socket_is_given_the_second(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = anyio.connect_unix

    async def connect_as_another_user(path: Path) -> object:
        if path.name == "chat.sock":
            raise PermissionError(13, "Permission denied")
        return await connect(path)

    async with Server() as server, ControlServer(server, "chat", read_only=UnixOptions(mode=0o660)):
        monkeypatch.setattr(anyio, "connect_unix", connect_as_another_user)
        async with ControlClient("chat") as client:
            assert client.greeting.read_only
    async with Server() as server, ControlServer(server, "chat"):
        with pytest.raises(ControlDenied, match="is for another user"):
            async with ControlClient("chat"):
                pass


async def test_more_clients_than_there_is_room_for_are_told_so(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        [listener] = control._servers.listeners()
        await listener.set_options(max_connections=1)
        async with ControlClient(control.path):
            with pytest.raises(ControlError, match="too many") as caught:
                async with ControlClient(control.path):
                    pass
            assert caught.value.code == "busy"


def test_sockets_of_programs_that_ended_are_listed_too(folder: Path) -> None:
    assert find_control_sockets() == {}
    folder.mkdir()
    (folder / "note.sock").write_text("no socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "old.sock"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "seen.ro.sock"))
    assert find_control_sockets() == {"old": folder / "old.sock", "seen": folder / "seen.ro.sock"}


async def test_the_greeting_can_be_read_by_any_program(controlled: Controlled) -> None:
    async with controlled() as (_, control):
        async with await anyio.connect_unix(str(control.path)) as stream:
            greeting = json.loads(await stream.receive())["esockd"]
        assert greeting["protocol"] == 1
        assert (greeting["name"], greeting["pid"], greeting["read_only"]) == ("edge", os.getpid(), False)
        assert {"listeners", "subscribe", "set_options"} <= set(greeting["methods"])
