"""A listener as its user sees it: real sockets, real clients, every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import echo
from tests.core.listening.conftest import ask_echo

from esockd_core import open_listener

if TYPE_CHECKING:
    from esockd_core import ConnectionEvent, Handler


pytestmark = pytest.mark.anyio


async def test_a_handler_echoes_to_ipv4_and_ipv6_clients_of_one_port(handler: Handler) -> None:
    async with open_listener("echo", 0, handler) as listener:
        assert listener.port is not None
        for host in ("127.0.0.1", "::1"):
            async with await anyio.connect_tcp(host, listener.port) as client:
                assert await ask_echo(client, b"hello") == b"hello"


async def test_a_closed_listener_has_counted_every_connection_and_byte(handler: Handler) -> None:
    async with open_listener("echo", 0, handler) as listener:
        assert listener.port is not None
        for _ in range(3):
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                await ask_echo(client, b"12345")
    stats = listener.stats()
    assert (stats.accepted, stats.current_connections) == (3, 0)
    assert (stats.bytes_in, stats.bytes_out) == (15, 15)
    assert sum(stats.shutdown_counts.values()) == 3


async def test_a_denied_peer_is_refused_and_the_next_is_served() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 127.0.0.2"]) as listener:
        assert listener.port is not None
        with anyio.fail_after(30):
            async with await anyio.connect_tcp("127.0.0.1", listener.port, local_host="127.0.0.2") as denied:
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await denied.receive()
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                assert await ask_echo(client, b"hello") == b"hello"
    stats = listener.stats()
    assert (stats.closed_forbidden, stats.accepted) == (1, 1)


async def test_max_connections_is_exact_and_a_place_is_free_again_after_an_end() -> None:
    ended = anyio.Event()

    def note(event: ConnectionEvent) -> None:
        if event.kind == "connection_stopped":
            ended.set()

    async with open_listener("echo", "127.0.0.1:0", echo, max_connections=1, on_event=note) as listener:
        assert listener.port is not None
        with anyio.fail_after(30):
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as first:
                assert await ask_echo(first, b"a") == b"a"
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as second:
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        await second.receive()
                assert listener.stats().closed_max_limit == 1
            await ended.wait()
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as third:
                assert await ask_echo(third, b"b") == b"b"
