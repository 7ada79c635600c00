"""One descriptor for many sockets, on every system that has such a thing."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from tests.core.platform import kqueues

from esockd_core._platform.poller import Poller, open_poller

if TYPE_CHECKING:
    from collections.abc import Iterator


def hide_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")


def give_kqueue(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kqueue", "kevent", "KQ_FILTER_READ", "KQ_EV_ADD", "KQ_EV_DELETE"):
        monkeypatch.setattr(select, name, getattr(kqueues, name), raising=False)


@pytest.fixture(params=["epoll", "kqueue"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    if request.param == "kqueue":
        hide_epoll(monkeypatch)
        give_kqueue(monkeypatch)
    opened = open_poller()
    assert opened is not None
    with closing(opened):
        yield opened


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        found = [socket.socketpair() for _ in range(3)]
        for sock in (sock for pair in found for sock in pair):
            stack.enter_context(sock)
        yield found


def is_readable(poller: Poller) -> bool:
    return bool(select.select([poller], [], [], 0)[0])


def test_it_tells_who_has_something_to_read_until_it_is_read(
    poller: Poller, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    for ours, _ in pairs:
        poller.register(ours.fileno())
    assert not is_readable(poller)
    assert poller.ready(10) == []
    (first, its_peer), (second, other_peer), _ = pairs
    its_peer.send(b"bytes")
    other_peer.close()  # the end of a stream is to be read too
    for _ in range(2):
        assert is_readable(poller)
        assert sorted(poller.ready(10)) == sorted([first.fileno(), second.fileno()])
    assert len(poller.ready(1)) == 1
    first.recv(100)
    assert poller.ready(10) == [second.fileno()]


def test_a_socket_that_is_unregistered_is_not_told(
    poller: Poller, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    (ours, peer), *_ = pairs
    poller.register(ours.fileno())
    peer.send(b"bytes")
    poller.unregister(ours.fileno())
    assert poller.ready(10) == []
    with pytest.raises(OSError, match="No such file"):
        poller.unregister(ours.fileno())


def test_a_system_without_either_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_epoll(monkeypatch)
    assert open_poller() is None
