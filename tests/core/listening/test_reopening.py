"""Reopening: new sockets, there or elsewhere, under the connections that go on."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import answer, connect, echo
from tests.patience import PATIENCE_S
from tests.ports import steady_address

from esockd_core import AddressInUse, CannotBind, Server, UnknownListener, open_listener
from esockd_core._listening.intake import Intake

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("address", [0, "127.0.0.1:0"])
async def test_reopening_keeps_connections_counters_and_port(address: object) -> None:
    """esockd's t_reopen and t_reopen_1, whose reopening killed connections and zeroed counters."""
    async with Server() as server:
        listener = await server.open("echo", address, echo, max_connections=4, acceptors=2)
        before, port = listener.acceptors, listener.port
        with connect(listener) as first:
            assert await answer(first) == b"hello"
            await server.reopen("echo")
            assert (listener.state, listener.port) == ("running", port)
            assert len(listener.acceptors) == len(before)
            with connect(listener) as second:
                assert await answer(second) == b"hello"
            assert await answer(first) == b"hello"
        assert listener.stats().accepted == 2
        with pytest.raises(UnknownListener):
            await server.reopen("other")


async def test_reopening_serves_who_waits_in_the_queue_and_leaves_a_suspended_listener_suspended() -> None:
    async with open_listener("echo", steady_address(), echo) as listener:
        await listener.suspend()
        with connect(listener) as client:
            await listener.reopen()
            assert listener.state == "suspended"
            assert await answer(client) == b"hello"


async def test_port_0_stays_the_same_port_when_reopening_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_listener("echo", 0, echo) as listener:
        port = listener.port
        with monkeypatch.context() as patch:
            patch.setattr(Intake, "open_sockets", fail)
            with pytest.raises(CannotBind, match="for once"):
                await listener.reopen()
        assert (listener.state, listener.port) == ("suspended", None)
        decided_by = (await listener.explain("127.0.0.1")).decided_by
        assert decided_by is not None
        assert (decided_by.verdict, decided_by.reason) == ("refuse", "it could not be reopened: nothing listens")
        await listener.reopen()
        await listener.resume()
        assert listener.port == port
        with connect(listener) as client:
            assert await answer(client) == b"hello"


async def fail(*arguments: object) -> None:
    raise CannotBind(errno.EADDRNOTAVAIL, "for once")


async def test_who_moves_and_has_too_few_descriptors_for_acceptors_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        addresses = listener.addresses
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "dup", no_more_descriptors)
            with pytest.raises(CannotBind, match="each acceptor: 1"):
                await listener.reopen("[::1]:0")
        assert (listener.state, listener.addresses) == ("running", addresses)
        with connect(listener) as client:
            assert await answer(client) == b"hello"


async def test_who_has_too_few_descriptors_for_acceptors_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    address = steady_address()
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "dup", no_more_descriptors)
        with pytest.raises(CannotBind, match="each acceptor: 1"):
            await open_listener("echo", address, echo).__aenter__()
    async with open_listener("echo", address, echo):  # nobody holds it
        pass


def no_more_descriptors(sock: socket.socket) -> socket.socket:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_listener_moves_to_another_address_or_stays_where_it_is() -> None:
    async with Server() as server:
        listener = await server.open("echo", steady_address(), echo)
        other = await server.open("other", "127.0.0.1:0", echo)
        old = listener.port
        with pytest.raises(AddressInUse):
            await listener.reopen(("127.0.0.1", other.port))
        assert (listener.state, listener.port) == ("running", old)
        await server.reopen("echo", move_to="[::1]:0")
        assert server.listener("echo", "[::1]:0") is listener
        assert listener.addresses[0].startswith("[::1]:")
        assert old is not None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old), PATIENCE_S)


async def test_a_unix_path_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with open_listener("echo", path, echo) as listener:
        path.unlink()
        await listener.reopen()
        async with await anyio.connect_unix(path) as client:
            await client.send(b"x")
            with anyio.fail_after(30):
                assert await client.receive() == b"x"
    assert not path.exists()
