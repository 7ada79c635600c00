"""Acceptors: several on a socket, crashes and how many are too many; no client is lost by them."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import answer, connect, echo

from esockd_core import open_listener, parse_address
from esockd_core._errors import CannotBind
from esockd_core._listening.acceptors import Acceptors
from esockd_core._loops.asyncio.accept import AsyncioCarrier
from esockd_core._loops.trio.accept import TrioCarrier
from esockd_core._sockets.opening import open_sockets

pytestmark = pytest.mark.anyio


async def test_several_acceptors_share_each_socket() -> None:
    async with open_listener("echo", 0, echo, acceptors=4) as listener:
        assert [acceptor.id for acceptor in listener.acceptors] == list(range(8))
        assert len({acceptor.address for acceptor in listener.acceptors}) == 2
        clients = [connect(listener) for _ in range(200)]
        for client in clients:
            with client:
                assert await answer(client) == b"hello"
        assert [acceptor.restarts for acceptor in listener.acceptors] == [0] * 8
        assert listener.stats().accepted == 200


async def test_a_crashed_acceptor_starts_again_and_loses_no_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crash_once(monkeypatch, times=4)
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        for _ in range(2):
            with connect(listener) as client:
                assert await answer(client) == b"hello"
        assert listener.acceptors[0].restarts == 4
        assert "acceptor 0 on 127.0.0.1" in caplog.text


async def test_the_fifth_crash_in_ten_seconds_closes_the_listener_with_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crash_once(monkeypatch, times=5)
    with pytest.raises(ZeroDivisionError, match="crash 5"), anyio.fail_after(30):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            await anyio.sleep_forever()
    assert listener.state == "closed"


async def test_acceptors_for_which_descriptors_run_out_keep_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    real = socket.socket.dup

    def dup(sock: socket.socket) -> socket.socket:
        if len(made) == 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(real(sock))
        return made[-1]

    with await open_sockets(parse_address("127.0.0.1:0")) as sockets:
        monkeypatch.setattr(socket.socket, "dup", dup)
        with pytest.raises(
            CannotBind, match=r"Too many open files \(one for each acceptor: 3\)\. Raise the limit \(ulimit -n\)"
        ):
            Acceptors("echo", sockets, per_socket=3)
    assert [sock.fileno() for sock in made] == [-1, -1]


def crash_once(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Make the first runs of an acceptor crash."""
    crashes = 0
    for carrier in (AsyncioCarrier, TrioCarrier):

        async def accept(self: Any, listening: socket.socket, real: Any = carrier.accept) -> None:
            nonlocal crashes
            if crashes < times:
                crashes += 1
                await checkpoint()
                raise ZeroDivisionError(f"crash {crashes}")
            await real(self, listening)

        monkeypatch.setattr(carrier, "accept", accept)
