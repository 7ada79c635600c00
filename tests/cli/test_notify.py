"""What a service manager hears of a process, on sockets such as systemd gives."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esockd_cli._notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 90.0


class Manager:
    """The end of NOTIFY_SOCKET that listens."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.socket = sock
        self.environ = {"NOTIFY_SOCKET": name}

    def hear(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(4096).decode().splitlines()

    def waiting(self) -> Iterator[list[str]]:
        """The messages that have come and were not heard yet."""
        with suppress(BlockingIOError):
            while True:
                yield self.hear()


@contextmanager
def manager_at(address: str, name: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(PATIENCE_S)
        yield Manager(sock, name)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    if request.param == "abstract":
        name = f"esockd-test-{os.getpid()}-{time.monotonic_ns()}"
        with manager_at(f"\0{name}", f"@{name}") as heard:
            yield heard
        return
    with tempfile.TemporaryDirectory() as folder:  # short enough for the address of a Unix socket
        path = str(Path(folder, "notify"))
        with manager_at(path, path) as heard:
            yield heard


def test_the_manager_hears_each_state_with_its_status_line(manager: Manager) -> None:
    notifier = Notifier(manager.environ)
    assert notifier.is_heard
    notifier.ready("serving 2 listeners")
    assert manager.hear() == ["READY=1", "STATUS=serving 2 listeners"]
    notifier.tell("3 connections")
    assert manager.hear() == ["STATUS=3 connections"]
    notifier.ping()
    assert manager.hear() == ["WATCHDOG=1"]
    notifier.stopping("closing")
    assert manager.hear() == ["STOPPING=1", "STATUS=closing"]
    notifier.hand_over(4711)
    assert manager.hear() == ["MAINPID=4711"]


def test_a_reload_says_when_it_began_in_microseconds_of_the_monotonic_clock(manager: Manager) -> None:
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier(manager.environ).reloading()
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reloading, began = manager.hear()
    assert reloading == "RELOADING=1"
    name, _, began_us = began.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(began_us) <= after_us


def test_a_status_of_several_lines_cannot_say_anything_else(manager: Manager) -> None:
    Notifier(manager.environ).tell("one\nREADY=1")
    assert manager.hear() == ["STATUS=one READY=1"]


def test_the_manager_keeps_descriptors_under_a_name_and_forgets_them(manager: Manager) -> None:
    notifier = Notifier(manager.environ)
    with socket.create_server(("127.0.0.1", 0)) as kept:
        notifier.store("edge", [kept.fileno()])
        message, descriptors, _, _ = socket.recv_fds(manager.socket, 4096, 8)
        assert message.decode().splitlines() == ["FDSTORE=1", "FDPOLL=0", "FDNAME=edge"]
        with socket.socket(fileno=descriptors[0]) as received:
            assert received.getsockname() == kept.getsockname()
        assert len(descriptors) == 1
    notifier.forget("edge")
    assert manager.hear() == ["FDSTOREREMOVE=1", "FDNAME=edge"]


def test_pings_and_status_lines_do_not_wait_for_a_manager_that_does_not_read(manager: Manager) -> None:
    manager.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    notifier = Notifier(manager.environ)
    for _ in range(2000):  # more than any queue of datagrams holds; each wait would take a second
        notifier.ping()
    manager.socket.setblocking(False)
    assert 0 < sum(1 for _ in manager.waiting()) < 2000


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative/path", "/nowhere/notify"])
def test_a_process_without_a_manager_goes_on(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    notifier.ready("serving")
    notifier.ping()
    assert notifier.is_heard == address.startswith("/")


@pytest.mark.parametrize(
    ("usec", "pid", "expected_s"),
    [
        ("30000000", None, 30.0),
        ("500000", 0, 0.5),
        ("30000000", 1, None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_waits_for_the_process_that_it_names(
    usec: str | None, pid: int | None, expected_s: float | None
) -> None:
    of_process = None if pid is None else str(os.getpid() + pid)
    given = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": usec, "WATCHDOG_PID": of_process}
    assert Notifier({name: value for name, value in given.items() if value is not None}).watchdog_s == expected_s
