"""TCP options of accepted connections, as a program finds them on each event loop."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from anyio.abc import SocketAttribute
from tests.core.conftest import connect_stream, echo

from esockd_core import StreamConnection, TcpOptions, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.anyio


async def nodelay_of(handled: Callable[..., Any], nodelay: bool) -> int:
    async with (
        open_listener("test", "127.0.0.1:0", handled, tcp=TcpOptions(nodelay=nodelay)) as listener,
        await connect_stream(listener) as client,
    ):
        return int.from_bytes(await client.receive(1), "big")


@pytest.mark.parametrize("nodelay", [True, False])
async def test_nodelay_is_what_the_option_says_on_accepted_sockets(nodelay: bool) -> None:
    async def tell(connection: StreamConnection) -> None:
        raw = connection.extra(SocketAttribute.raw_socket)
        await connection.send(bytes([bool(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))]))

    assert await nodelay_of(tell, nodelay) == nodelay


async def test_more_is_read_at_a_time_with_tune_buffer() -> None:
    tcp = TcpOptions(tune_buffer=True, receive_buffer_bytes=100_000)
    async with open_listener("test", "127.0.0.1:0", echo, tcp=tcp) as listener:
        assert listener._site.read_bytes >= 2 * 100_000  # the kernel doubles what is asked for (socket(7))
