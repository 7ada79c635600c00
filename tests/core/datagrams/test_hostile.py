"""Datagrams of any content and length, from peers that are let in and from peers that are not."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import until
from tests.core.datagrams.udp import Client, Echo, assert_all_accounted_for, echo
from tests.ports import steady_port

from esockd_core import Handler, UdpOptions, open_listener

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way")]


@pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])
@pytest.mark.parametrize("host", ["127.0.0.1", "*"], ids=["one address", "all"])
async def test_whatever_comes_every_datagram_is_accounted_for(handler: Handler, host: str) -> None:
    dice = random.Random(20)
    rules = ["deny 127.0.0.3", "allow all"]
    limits = UdpOptions(max_datagram_bytes=900, queue_datagrams=4, health_check=(b"?", b"!"))
    address = f"udp://{host}:{steady_port()}"  # which it has again after each reopening
    async with open_listener(
        "udp", address, handler, access_rules=rules, max_connections=3, max_loop_lag=None, udp=limits
    ) as listener:
        clients = [Client(listener, source=f"127.0.0.{1 + number % 5}") for number in range(12)]
        sent = 0
        for _ in range(40):
            for _ in range(dice.randrange(20)):
                dice.choice(clients).send(dice.choice([b"", b"?", dice.randbytes(dice.randrange(1_200))]))
                sent += 1
            if dice.random() < 0.1 and listener.connections:
                dice.choice(listener.connections).abort()
            if dice.random() < 0.1:
                await listener.reopen()
            for client in clients:
                client.received()
            await anyio.lowlevel.checkpoint()
        await until(lambda: listener.stats().datagrams_in == sent)
        assert_all_accounted_for(listener.stats(), sent)
        for client in clients:
            client.__exit__()
    assert_all_accounted_for(listener.stats(), sent)
    assert sum(listener.stats().shutdown_counts.values()) == listener.stats().accepted


async def test_a_flood_of_refused_peers_leaves_nothing_behind() -> None:
    async with open_listener("udp", "udp://127.0.0.1:0", echo, access_rules=["deny all"]) as listener:
        with Client(listener) as client:
            for _ in range(20):
                client.send(*[b"x"] * 100)
                await anyio.lowlevel.checkpoint()
            await until(lambda: listener.stats().datagrams_in == 2_000)
            assert listener.stats().current_connections == 0
            assert listener._site.ports[0].peers == {}  # type: ignore[attr-defined]
            assert len(listener.refusals) <= 256
            assert client.received() == []
        assert_all_accounted_for(listener.stats(), sent=2_000)
