"""`esockd_core.privileges`: ports that root opens, and the user that it becomes for good."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import pytest
from tests.accounts import NEEDS_ROOT, assert_process_has_no_capability, assert_process_is
from tests.core.conftest import echo

from esockd_core import InvalidOption, ListenerOptions, Server, TcpOptions, UdpOptions
from esockd_core._sockets import handed_over
from esockd_core.privileges import Account, find_account, open_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

UNKNOWN_UID: Final = "3999999999"


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    """Leave no socket to the listeners of other tests."""
    yield
    handed_over.close_waiting()


# Finding


@pytest.fixture(scope="module")
def nobody() -> Account:
    return find_account("nobody")


def test_a_user_is_found_by_name_and_by_number(nobody: Account) -> None:
    assert nobody.name == "nobody"
    assert nobody.gid in nobody.groups
    assert find_account(str(nobody.uid)) == nobody


def test_a_group_is_found_by_name_and_by_number_and_takes_the_place_of_the_users_own(nobody: Account) -> None:
    other = find_account("nobody", "daemon")
    assert find_account("nobody", str(other.gid)) == other
    assert (other.name, other.uid) == (nobody.name, nobody.uid)
    assert other.gid != nobody.gid
    assert other.gid in other.groups
    assert nobody.gid not in other.groups


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
        (-1, None, "user is '-1': this machine does not know the name"),
        ("", None, "user is '': this machine does not know the name"),
        ("nobody", "", "group is '': this machine does not know the name"),
        ("no\0body", None, "user is .*: this machine does not know the name"),
        ("nobody", "no\0group", "group is .*: this machine does not know the name"),
        (b"nobody", None, "user is b'nobody': it takes a name or a number"),
        ("nobody", True, "group is True: it takes a name or a number"),
        ("9" * 5000, "0", "user is .*: a number is at most 4294967294"),
        ("4294967295", "0", "user is '4294967295': a number is at most 4294967294"),
        ("nobody", "4294967295", "group is '4294967295': a number is at most 4294967294"),
    ],
)
def test_an_account_that_cannot_be_is_refused_with_what_was_given(user: Any, group: Any, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        find_account(user, group)


def test_numbers_need_not_be_texts() -> None:
    assert find_account(0, 0) == find_account("0", "0")


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

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid


@NEEDS_ROOT
@pytest.mark.linux
def test_root_becomes_another_user_with_all_of_its_groups_for_good() -> None:
    account, other = find_account("nobody", "daemon"), find_account("daemon")
    with Child("become('nobody', 'daemon')", "become('daemon')", "become('nobody', 'daemon')") as child:
        assert child.read_line() == "done"
        assert child.read_line().startswith(f"cannot become daemon (uid {other.uid}, gid {other.gid}): ")
        assert child.read_line() == "done"  # there is nothing to do
        assert_process_is(child.pid, account)
        assert_process_has_no_capability(child.pid)


@NEEDS_ROOT
@pytest.mark.linux
def test_root_with_another_group_alone_stays_root() -> None:
    with Child("become(None, 'daemon')") as child:
        assert child.read_line() == "done"
        assert_process_is(child.pid, find_account(None, "daemon"))


@NEEDS_ROOT
@pytest.mark.linux
def test_a_process_that_would_keep_capabilities_is_refused() -> None:
    keep = "import ctypes; ctypes.CDLL(None).prctl(8, 1, 0, 0, 0)"  # PR_SET_KEEPCAPS
    with Child(keep, "become('nobody')", "become('nobody')") as child:
        for _ in range(2):  # the second time it is nobody already, which is no reason to believe more of it
            assert child.read_line().startswith("this process is nobody, but it has capabilities: ")


@NEEDS_ROOT
@pytest.mark.linux
@pytest.mark.parametrize("saved", ["user", "group"])
def test_a_process_that_has_root_as_its_saved_user_or_group_has_another_account(saved: str) -> None:
    account = find_account("nobody")
    user = f"os.setresuid({account.uid}, {account.uid}, {0 if saved == 'user' else account.uid})"
    group = f"os.setresgid({account.gid}, {account.gid}, {0 if saved == 'group' else account.gid})"
    with Child("os.setgroups([])", group, user, "become('nobody')") as child:
        assert child.read_line().startswith("cannot become nobody ")


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
        await open_ahead("127.0.0.1:0", worker_count=3)
    [waiting] = handed_over._waiting
    assert len(waiting.shares) == (3 if sys.platform == "linux" else 1)


@pytest.mark.anyio
async def test_unix_sockets_are_left_to_their_listener() -> None:
    with TemporaryDirectory() as folder:
        await open_ahead(f"unix:{folder}/s")
        assert not any(Path(folder).iterdir())  # noqa: ASYNC240
    assert handed_over.waiting_addresses() == ()


@pytest.mark.anyio
@pytest.mark.parametrize("worker_count", [0, -1, True, "2"])
async def test_an_address_is_open_ahead_for_one_process_at_least(worker_count: Any) -> None:
    with pytest.raises(InvalidOption, match=r"worker_count is .+: it takes a whole number above 0"):
        await open_ahead("127.0.0.1:0", worker_count=worker_count)
    assert handed_over.waiting_addresses() == ()
