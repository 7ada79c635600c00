"""Unix sockets: who may use a path, whose it is, and what becomes of it; abstract names."""

# ruff: noqa: ASYNC240 (nothing else runs in these loops that a look at a file could hold up)

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.sockets.conftest import Intercepted, exchange, names_in, opened, refusal
from tests.patience import PATIENCE_S

from esockd_core._errors import AddressInUse
from esockd_core._options.unix import UnixOptions
from esockd_core._sockets.unix import claimed_path

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core._sockets.opening import ListeningSockets

pytestmark = pytest.mark.anyio


async def test_a_unix_path_listens_and_is_removed_by_close(path: Path) -> None:
    listening = await opened(path)
    assert listening.addresses == (f"unix:{path}",)
    assert listening.port is None
    exchange(listening.sockets[0])
    assert names_in(path.parent) == ["s"]
    listening.close()
    listening.close()
    assert names_in(path.parent) == []


async def test_a_relative_path_is_removed_although_the_process_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listening = await opened("unix:relative")
    monkeypatch.chdir("/")
    listening.close()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [None, 0o600, 0o666, 0])
async def test_the_mode_is_exact_whatever_the_umask_and_never_wider(
    path: Path, umask: int, mode: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = 0o660 if mode is None else mode
    just_bound: list[int] = []

    class Recorded(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            just_bound.append(path.stat().st_mode & 0o777)

    monkeypatch.setattr(socket, "socket", Recorded)
    before = os.umask(umask)
    try:
        with await opened(path, unix=UnixOptions(mode=mode)):
            assert path.stat().st_mode & 0o777 == final
    finally:
        os.umask(before)
    assert [seen & ~final for seen in just_bound] == [0]


async def test_owner_and_group_are_given_by_number_or_name(path: Path) -> None:
    with await opened(path, unix=UnixOptions(owner=os.getuid(), group=os.getgid())):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
async def test_root_can_give_the_path_to_another_user(path: Path) -> None:
    with await opened(path, unix=UnixOptions(owner="nobody", group=12345)):
        assert path.owner() == "nobody"
        assert path.stat().st_gid == 12345


async def test_a_failing_change_of_owner_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    told = await refusal(path, unix=UnixOptions(owner=1))
    assert told == f"cannot listen on unix:{path}: Operation not permitted"
    assert names_in(path.parent) == []


async def test_a_stale_path_is_replaced(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with await opened(path) as listening:
        exchange(listening.sockets[0])


@pytest.mark.parametrize("backlog", [0, 10])
async def test_a_live_path_is_never_stolen_even_with_a_full_backlog(path: Path, backlog: int) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as live, ExitStack() as stack:
        live.bind(str(path))
        live.listen(backlog)
        inode = path.stat().st_ino
        if not backlog:
            while stack.enter_context(nonblocking()).connect_ex(str(path)) == 0:
                pass
        by = f" by this process (pid {os.getpid()})" if backlog else ""
        assert await refusal(path) == f"unix:{path} is already in use{by}. Try another path, or: ss -lxp src {path}"
        assert path.stat().st_ino == inode
        assert names_in(path.parent) == ["s"]


def nonblocking() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
async def test_a_path_that_a_program_holds_without_listening_yet_is_not_stolen(path: Path, kind: int) -> None:
    with closing(socket.socket(socket.AF_UNIX, kind)) as early:
        early.bind(str(path))
        inode = path.stat().st_ino
        assert "is already in use" in await refusal(path)
        assert path.stat().st_ino == inode
        early.listen()


async def test_who_holds_a_path_without_listening_is_told_so(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as early:
        early.bind(str(path))
        told = f"unix:{path} is already in use by a program that takes no clients"
        assert await refusal(path) == f"{told}. Try another path, or: ss -axp src {path}"


async def test_a_socket_of_another_type_is_not_stolen(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as live:
        live.bind(str(path))
        assert "is already in use (probing it: " in await refusal(path)
        assert path.is_socket()


@pytest.mark.parametrize(
    ("what", "told"),
    [("file", "a file is there"), ("folder", "a folder is there"), ("link", "a symbolic link is there")],
)
async def test_what_is_no_socket_is_left_alone(path: Path, what: str, told: str) -> None:
    match what:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("nowhere")
    assert await refusal(path) == f"cannot listen on unix:{path}: {told}, which is not a socket"
    assert names_in(path.parent) == ["s"]
    assert what != "file" or path.read_text() == "precious"


async def test_close_leaves_a_path_that_is_somebody_elses_by_now(path: Path) -> None:
    listening = await opened(path)
    path.unlink()
    with await opened(path) as successor:
        listening.close()
        exchange(successor.sockets[0])


async def test_a_folder_that_does_not_exist_is_told_so(path: Path) -> None:
    assert await refusal(path / "x") == (
        f"cannot listen on unix:{path}/x: cannot create {path}/.x.esockd-lock: No such file or directory"
    )


async def test_a_path_that_another_process_is_just_opening_is_in_use(path: Path) -> None:
    with claimed_path(str(path)):
        assert await refusal(path) == f"unix:{path} is being opened by another process just now"
    (await opened(path)).close()


async def test_a_lock_left_by_a_crash_locks_nothing(path: Path) -> None:
    lock = path.with_name(".s.esockd-lock")
    lock.touch()
    (await opened(path)).close()
    assert not lock.exists()


async def test_files_of_others_beside_the_path_stay(path: Path) -> None:
    """Many programs keep a lock or a number of a process under such a name."""
    theirs = [path.with_name(name) for name in ("s.lock", ".s.lock", "s~", ".s.swp")]
    for each in theirs:
        each.write_text("812")
    (await opened(path)).close()
    assert [each.read_text() for each in theirs] == ["812"] * 4


@pytest.mark.parametrize("what", ["file", "folder", "link", "pipe"])
async def test_what_is_in_the_way_of_the_lock_is_left_alone(path: Path, what: str) -> None:
    lock = path.with_name(".s.esockd-lock")
    match what:
        case "file":
            lock.write_text("precious")
        case "folder":
            lock.mkdir()
        case "link":
            lock.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(lock)
    assert f"cannot listen on unix:{path}: cannot create {lock}: " in await refusal(path)
    assert names_in(path.parent) == [".s.esockd-lock"]


async def test_an_abstract_name_listens_and_is_in_use_while_it_does() -> None:
    name = f"unix:@esockd-test-{os.getpid()}"
    with await opened(name) as listening:
        assert listening.addresses == (name,)
        exchange(listening.sockets[0])
        name_of_it = name.removeprefix("unix:")
        assert await refusal(name) == (
            f"{name} is already in use by this process (pid {os.getpid()}). "
            f"Try another path, or: ss -lxp src {name_of_it}"
        )
    (await opened(name)).close()


async def test_an_abstract_name_that_the_kernel_refuses_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refused(Intercepted):
        def before_bind(self, address: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket, "socket", Refused)
    assert await refusal("unix:@x") == "cannot listen on unix:@x: Operation not permitted"


def test_of_many_that_open_one_stale_path_at_once_exactly_one_wins(path: Path) -> None:
    """Whoever loses says that the path is in use, and the winner's path stays where it is."""
    for _ in range(20):
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(path))
        start = threading.Barrier(8)
        won: list[ListeningSockets] = []
        lost: list[AddressInUse] = []

        def contend(start: threading.Barrier, won: list[ListeningSockets], lost: list[AddressInUse]) -> None:
            start.wait(PATIENCE_S)
            try:
                won.append(anyio.run(opened, str(f"unix:{path}")))
            except AddressInUse as error:
                lost.append(error)

        threads = [threading.Thread(target=contend, args=(start, won, lost)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert (len(won), len(lost)) == (1, 7)
        exchange(won[0].sockets[0])
        won[0].close()
        assert names_in(path.parent) == []
