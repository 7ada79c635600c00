"""`esockd_core.privileges`: ports that root opens, and the user that it becomes for good."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Self

import anyio
import pytest
from tests.core.conftest import echo

from esockd_core import InvalidOption, ListenerOptions, Server, TcpOptions, UdpOptions
from esockd_core._sockets import handed_over
from esockd_core.privileges import Account, find_account, open_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

NEEDS_ROOT: Final = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY: Final = find_account("nobody")
UNKNOWN_UID: Final = "3999999999"


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    """Leave no socket to the listeners of other tests."""
    yield
    handed_over.close_waiting()


# Finding


def test_a_user_is_found_by_name_and_by_number() -> None:
    assert NOBODY.name == "nobody"
    assert NOBODY.gid in NOBODY.groups
    assert find_account(str(NOBODY.uid)) == NOBODY


def test_a_group_is_found_by_name_and_by_number_and_takes_the_place_of_the_users_own() -> None:
    other = find_account("nobody", "daemon")
    assert find_account("nobody", str(other.gid)) == other
    assert (other.name, other.uid) == (NOBODY.name, NOBODY.uid)
    assert other.gid != NOBODY.gid
    assert other.gid in other.groups
    assert NOBODY.gid not in other.groups


def test_a_group_alone_leaves_the_user_as_it_is() -> None:
    found = find_account(None, "daemon")
    assert found.uid == os.geteuid()
    assert found.gid == find_account("daemon").gid


def test_a_user_without_a_name_needs_a_group_and_gets_no_other() -> None:
    found = find_account(UNKNOWN_UID, "daemon")
    assert (found.name, found.uid, found.home) == (UNKNOWN_UID, int(UNKNOWN_UID), "/")
    assert found.groups == (found.gid,)
    with pytest.raises(InvalidOption, match="user is '3999999999': the user database has no group for this number"):
        find_account(UNKNOWN_UID)


@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("no-such-user", None, "user is 'no-such-user': this machine does not know the name"),
        ("nobody", "no-such-group", "group is 'no-such-group': this machine does not know the name"),
        ("-1", None, "user is '-1': this machine does not know the name"),
        ("4294967295", "0", "user is '4294967295': a number is at most 4294967294"),
        ("nobody", "4294967295", "group is '4294967295': a number is at most 4294967294"),
    ],
)
def test_an_account_that_cannot_be_is_refused_with_what_was_given(user: str, group: str | None, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        find_account(user, group)


# Becoming

PROGRAM: Final = """
import os, sys
from esockd_core import EsockdError
from esockd_core.privileges import find_account

def become(*account):
    try:
        find_account(*account).become()
    except EsockdError as error:
        print(error, flush=True)
    else:
        print("done", flush=True)

"""


class Child:
    """A process of its own that runs a few lines, and stays until it is told to end."""

    def __init__(self, *lines: str) -> None:
        text = "\n".join((PROGRAM, *lines, "sys.stdin.read()"))
        # Coverage is not measured there: nobody may write the file.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _, err = self._process.communicate(timeout=60)  # and the end of its input is its end
        if exc_type is None:
            assert (self._process.returncode, err) == (0, "")

    def read_line(self) -> str:
        """What it says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def status(self) -> dict[str, list[str]]:
        """What the kernel says of it (proc_pid_status(5))."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


@NEEDS_ROOT
def test_root_becomes_another_user_with_all_of_its_groups_for_good() -> None:
    account = find_account("nobody", "daemon")
    with Child("become('nobody', 'daemon')", "become('daemon')", "become('nobody', 'daemon')") as child:
        assert child.read_line() == "done"
        assert child.read_line().startswith("cannot become daemon (uid 1, gid 1): ")
        assert child.read_line() == "done"  # there is nothing to do
        status = child.status()
    assert status["Uid"] == [str(account.uid)] * 4
    assert status["Gid"] == [str(account.gid)] * 4
    assert {int(each) for each in status["Groups"]} == set(account.groups)
    assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}


@NEEDS_ROOT
def test_root_with_another_group_alone_stays_root() -> None:
    with Child("become(None, 'daemon')") as child:
        assert child.read_line() == "done"
        status = child.status()
    assert status["Uid"] == ["0"] * 4
    assert status["Gid"] == [str(find_account("daemon").gid)] * 4
    assert status["Groups"] == [str(find_account("daemon").gid)]


@NEEDS_ROOT
def test_a_process_that_would_keep_capabilities_is_refused() -> None:
    keep = "import ctypes; ctypes.CDLL(None).prctl(8, 1, 0, 0, 0)"  # PR_SET_KEEPCAPS
    with Child(keep, "become('nobody')") as child:
        assert child.read_line().startswith("this process is nobody now, but it has capabilities still: ")


def test_the_account_of_this_process_is_current() -> None:
    assert find_account(str(os.getuid()), str(os.getgid())).is_current
    own = find_account(str(os.getuid()), str(os.getgid()))
    other = Account(name="other", uid=own.uid, gid=own.gid + 1, groups=(own.gid + 1,), home="/")
    assert not other.is_current


# Opening ahead


@pytest.mark.anyio
async def test_clients_wait_at_a_port_that_is_open_ahead_of_its_listener() -> None:
    with anyio.fail_after(60):
        await open_ahead("127.0.0.1:0", ListenerOptions(tcp=TcpOptions(backlog=7)))
        [waiting] = handed_over._waiting
        with socket.socket(fileno=os.dup(waiting.descriptors[0])) as sock:
            port = sock.getsockname()[1]
        async with await anyio.connect_tcp("127.0.0.1", port) as client, Server() as server:
            await client.send(b"early")
            listener = await server.open("echo", "127.0.0.1:0", echo)
            assert listener.port == port
            assert await client.receive() == b"early"
            assert handed_over.waiting_addresses() == ()


@pytest.mark.linux
@pytest.mark.anyio
async def test_datagrams_and_multicast_groups_are_open_ahead_too() -> None:
    options = ListenerOptions(udp=UdpOptions(multicast=["239.255.77.8%lo"]), shutdown_timeout=0)
    with anyio.fail_after(60):
        await open_ahead("udp://*:0", options)
        assert handed_over.waiting_addresses() == ("udp://*:0",)
        async with Server() as server:
            listener = await server.open("echo", "udp://*:0", echo, options)
            assert handed_over.waiting_addresses() == ()
            async with await anyio.create_connected_udp_socket("127.0.0.1", listener.port or 0) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"


@pytest.mark.anyio
async def test_an_address_for_workers_is_open_ahead_for_each_of_them() -> None:
    with anyio.fail_after(60):
        await open_ahead("127.0.0.1:0", processes=3)
    [waiting] = handed_over._waiting
    assert len(waiting.shares) == (3 if sys.platform == "linux" else 1)


@pytest.mark.anyio
async def test_unix_sockets_are_left_to_their_listener() -> None:
    with TemporaryDirectory() as folder:
        await open_ahead(f"unix:{folder}/s")
        assert not any(Path(folder).iterdir())  # noqa: ASYNC240
    assert handed_over.waiting_addresses() == ()
