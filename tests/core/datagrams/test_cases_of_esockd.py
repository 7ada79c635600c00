"""Counterparts of esockd's own cases for UDP: test/esockd_udp_SUITE.erl and esockd_SUITE.erl of emqx/esockd."""

from __future__ import annotations

import pytest
from tests.core.conftest import reasons, until
from tests.core.datagrams.udp import Client, Echo, drops, echo

from esockd_core import DatagramConnection, Handler, InvalidOption, Server, open_listener

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"


@pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])
async def test_udp_server(handler: Handler) -> None:
    """t_udp_server."""
    async with open_listener("echo", ADDRESS, handler) as listener:
        with Client(listener) as client:
            assert await client.ask(b"hello") == b"hello"
            assert await client.ask(b"world") == b"world"


async def test_count_peers() -> None:
    """t_count_peers."""
    async with open_listener("echo", ADDRESS, echo) as listener:
        with Client(listener) as one, Client(listener) as two, Client(listener) as three:
            for count, client in enumerate((one, two, three), start=1):
                assert await client.ask(b"hello") == b"hello"
                assert listener.stats().current_connections == count


async def test_peer_down() -> None:
    """t_peer_down: a peer whose handler has ended is no longer counted, and may come again."""

    async def once(connection: DatagramConnection) -> None:
        await connection.send(await connection.receive())

    async with open_listener("echo", ADDRESS, once) as listener:
        with Client(listener) as client:
            assert await client.ask(b"hello") == b"hello"
            await reasons(listener)
            assert listener.stats().current_connections == 0
            assert await client.ask(b"hello") == b"hello"


async def test_udp_error() -> None:
    """t_udp_error: an error that the network reports ends neither the listener nor its peers."""
    async with open_listener("echo", ADDRESS, echo) as listener:
        with Client(listener) as client:
            with Client(listener) as gone:
                gone.send(b"hello")
            await until(lambda: listener.stats().datagrams_out == 1)
            assert await client.ask(b"hello") == b"hello"
            assert listener.state == "running"


async def test_health_check() -> None:
    """t_health_check: the request and nothing but it is answered; a peer that the rules keep out gets no answer."""
    async with open_listener("echo", ADDRESS, echo, udp={"health_check": (b"hello", b"world")}) as listener:
        with Client(listener) as client:
            assert await client.ask(b"hello") == b"world"
            assert await client.ask(b"hello") == b"world"
            assert listener.stats().accepted == 0
            assert await client.ask(b"hello!") == b"hello!"
            await listener.deny("127.0.0.2")
        with Client(listener, source="127.0.0.2") as denied:
            denied.send(b"hello")
            await until(lambda: drops(listener) == {"forbidden": 1})
            assert denied.received() == []


async def test_update_options_udp() -> None:
    """t_update_options_udp: changes hold for new peers, and those that are there stay."""
    async with Server() as server:
        listener = await server.open("echo", ADDRESS, echo)
        with Client(listener) as one, Client(listener) as other:
            assert await one.ask(b"hello") == b"hello"
            await server.listener("echo").set_options(max_connections=1, udp={"queue_datagrams": 8})
            other.send(b"hello")
            await until(lambda: drops(listener) == {"max_limit": 1})
            assert await one.ask(b"still") == b"still"
            await listener.reset_options()
            assert await other.ask(b"hello") == b"hello"


async def test_update_udp_options_error() -> None:
    """t_update_udp_options_error: a change that is not valid changes nothing."""
    async with open_listener("echo", ADDRESS, echo, max_connections=5) as listener:
        before = listener.options
        for wrong in ({"udp": {"queue_datagrams": 0}}, {"tcp": {"nodelay": False}}, {"acceptors": 4}):
            with pytest.raises(InvalidOption):
                await listener.set_options(max_connections=1, **wrong)
        assert listener.options == before
        with Client(listener) as client:
            assert await client.ask(b"hello") == b"hello"
