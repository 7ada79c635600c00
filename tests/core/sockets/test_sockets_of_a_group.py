"""Several sockets of one address, as the worker of a program with fewer workers than the one before has them."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from esockd_core._listening.acceptors import Acceptors
from esockd_core._sockets.opening import ListeningSockets

pytestmark = pytest.mark.anyio


async def test_each_socket_of_one_address_has_its_acceptors_and_the_address_is_shown_once() -> None:
    first, second = socket.socket(), socket.socket()
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    first.bind(("127.0.0.1", 0))
    second.bind(first.getsockname())
    for sock in (first, second):
        sock.listen()
    with closing(ListeningSockets([first, second], "tcp")) as sockets, closing(Acceptors("group", sockets, 2)) as group:
        where = f"127.0.0.1:{sockets.port}"
        assert sockets.addresses == (where,)
        assert [each.address for each in group.acceptors] == [where] * 4
