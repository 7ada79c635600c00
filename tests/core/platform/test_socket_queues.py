"""What the kernel tells of a socket's queues."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from contextlib import ExitStack, closing
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from esockd_core._platform import socket_queues, unix_queue
from esockd_core._platform.socket_queues import accept_queue, undelivered_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = bytes(1 << 20)


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    if request.param == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before connecting: it bounds the window
            peer.connect(listening.getsockname())
            ours, _ = listening.accept()
    with ours, peer:
        ours.setblocking(False)
        yield ours, peer


def test_what_the_peer_took_is_delivered_and_what_it_leaves_is_not(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    assert undelivered_bytes(ours) == 0
    sent = ours.send(FULL)
    waiting = undelivered_bytes(ours)
    assert waiting > 0
    assert undelivered_bytes(ours.fileno()) == waiting
    left = sent
    while left > sent // 4:
        left -= len(peer.recv(left))
    assert undelivered_bytes(ours) < waiting
    while left:
        left -= len(peer.recv(left))
    assert undelivered_bytes(ours) == 0


def test_a_tcp_socket_counts_bytes_of_the_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listening.getsockname())
        with closing(listening.accept()[0]) as ours:
            ours.setblocking(False)
            sent = ours.send(FULL)
            assert 0 < undelivered_bytes(ours) <= sent


def test_a_socket_that_is_closed_or_not_connected_has_nothing_undelivered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert undelivered_bytes(listening) == 0
        descriptor = listening.fileno()
    assert undelivered_bytes(listening) == 0
    assert undelivered_bytes(descriptor) == 0


def test_the_accept_queue_of_tcp_tells_who_waits_and_how_many_may() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listening:
        assert accept_queue(listening) == (0, 7)
        with socket.create_connection(listening.getsockname()), socket.create_connection(listening.getsockname()):
            assert accept_queue(listening) == (2, 7)


def test_the_accept_queue_of_a_unix_socket_is_told_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as clients:
        listening.bind(str(tmp_path / "socket"))
        listening.listen(7)
        assert accept_queue(listening) == (0, 7)
        for _ in range(2):
            clients.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "socket"))
        assert accept_queue(listening) == (2, 7)


@pytest.mark.parametrize("fault", ["no netlink", "no such socket", "another answer"])
def test_the_accept_queue_of_a_unix_socket_is_unknown_where_the_kernel_does_not_tell(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listening, monkeypatch.context() as patch:
        listening.bind("")  # an abstract name of the kernel's choice
        listening.listen()
        match fault:
            case "no netlink":
                patch.setattr(unix_queue, "NETLINK_SOCK_DIAG", 2**10)
            case "no such socket":
                patch.setattr(os, "fstat", lambda _: SimpleNamespace(st_ino=2**32 - 2))
            case "another answer":
                patch.setattr(unix_queue, "UDIAG_SHOW_RQLEN", 0x20)  # UDIAG_SHOW_MEMINFO
        assert accept_queue(listening) is None


def as_on(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import the module as on another system."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", system)
        importlib.reload(socket_queues)


@pytest.fixture
def elsewhere() -> Iterator[None]:
    yield
    importlib.reload(socket_queues)


def test_macos_tells_the_send_queue_as_a_socket_option(
    elsewhere: None, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on("darwin", monkeypatch)
    monkeypatch.setattr(socket_queues, "SO_NWRITE", socket.SO_SNDBUF)  # one that this kernel tells
    ours, _ = pair
    expected = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert socket_queues.KNOWS_UNDELIVERED
    assert socket_queues.undelivered_bytes(ours) == socket_queues.undelivered_bytes(ours.fileno()) == expected
    assert ours.send(b"still open") == 10
    ours.close()
    assert socket_queues.undelivered_bytes(ours) == 0


def test_the_systems_of_bsd_have_an_ioctl_of_their_own_for_the_send_queue(
    elsewhere: None, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    numbers = []
    for system in ("linux", "freebsd14", "netbsd10"):
        as_on(system, monkeypatch)
        assert socket_queues.KNOWS_UNDELIVERED
        assert socket_queues.undelivered_bytes(ours) == 0  # or a number that Linux does not know
        numbers.append(socket_queues.SEND_QUEUE_IOCTL)
    assert len(set(numbers)) == 3


def test_a_system_that_tells_nothing_says_so(
    elsewhere: None, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on("openbsd7", monkeypatch)
    ours, _ = pair
    ours.send(b"waiting")
    assert not socket_queues.KNOWS_UNDELIVERED
    assert socket_queues.undelivered_bytes(ours) == 0
    assert socket_queues.accept_queue(ours) is None
