"""Datagrams behind a proxy: each has a PROXY header, and one socket of the proxy speaks for many clients."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.conftest import reasons, until
from tests.core.datagrams.udp import Client, Echo, assert_all_accounted_for, drops, echo

from esockd_core import DatagramConnection, open_listener
from esockd_proxyproto import Command, Endpoint, ProxyHeader, Transport, encode

pytestmark = pytest.mark.anyio

STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])
EVERYWHERE = pytest.mark.parametrize("address", ["udp://127.0.0.1:0", "udp://*:0"], ids=["one address", "all"])


def of(client: str, payload: bytes, port: int = 4000) -> bytes:
    """A datagram of a client, as a proxy passes it on."""
    header = ProxyHeader(
        source=Endpoint(client, port), destination=Endpoint("192.0.2.1", 53), transport=Transport.DGRAM
    )
    return encode(header) + payload


@STYLES
@EVERYWHERE
async def test_each_client_behind_a_proxy_has_a_connection_of_its_own(handler: Any, address: str) -> None:
    async with open_listener("udp", address, handler, proxy_protocol={"trusted": ["127.0.0.1"]}) as listener:
        with Client(listener) as proxy:
            assert await proxy.ask(of("198.51.100.1", b"one")) == b"one"  # the reply has no header
            assert await proxy.ask(of("198.51.100.2", b"")) == b""
            assert await proxy.ask(of("198.51.100.1", b"again")) == b"again"
            first, second = listener.connections
            assert isinstance(first, DatagramConnection)
            assert (first.peername, second.peername) == (("198.51.100.1", 4000), ("198.51.100.2", 4000))
            assert first.socket_peername == proxy.name
            assert first.sockname == ("127.0.0.1", listener.port)
            assert first.datagrams_in == 2
            assert first.proxy is not None
            assert first.proxy.transport is Transport.DGRAM
            assert_all_accounted_for(listener.stats(), sent=3)


async def test_a_datagram_without_a_valid_header_is_dropped() -> None:
    async with open_listener("udp", "udp://127.0.0.1:0", echo, proxy_protocol=True) as listener:
        with Client(listener) as proxy:
            proxy.send(b"hello", b"", of("198.51.100.1", b"")[:-3])
            assert await proxy.ask(of("198.51.100.1", b"x")) == b"x"
            proxy.send(b"no header of the same peer either")
            await until(lambda: drops(listener) == {"proxy_invalid": 4})
            assert_all_accounted_for(listener.stats(), sent=5)


async def test_only_trusted_proxies_may_name_clients() -> None:
    async with open_listener("udp", "udp://127.0.0.1:0", echo, proxy_protocol={"trusted": ["127.0.0.2"]}) as listener:
        with Client(listener) as stranger, Client(listener, source="127.0.0.2") as proxy:
            stranger.send(of("198.51.100.1", b"x"))
            assert await proxy.ask(of("198.51.100.1", b"y")) == b"y"
            assert drops(listener) == {"forbidden": 1}
            assert listener.stats().accepted == 1


async def test_rules_and_limits_judge_the_client_in_the_header() -> None:
    async with open_listener(
        "udp",
        "udp://127.0.0.1:0",
        echo,
        proxy_protocol=True,
        access_rules=["deny 198.51.100.9", "allow all"],
        max_connections_per_source=1,
    ) as listener:
        with Client(listener) as proxy:
            proxy.send(of("198.51.100.9", b"x"))
            assert await proxy.ask(of("198.51.100.1", b"y")) == b"y"
            proxy.send(of("198.51.100.1", b"z", port=5000))
            await until(lambda: drops(listener) == {"forbidden": 1, "max_limit": 1})
            assert await reasons(listener, 2) == {"source_forbidden": 1, "source_max_limit": 1}
            assert listener.stats().current_connections == 1
            assert_all_accounted_for(listener.stats(), sent=3)


async def test_a_rehearsal_judges_the_client_in_the_header() -> None:
    async with open_listener("udp", "udp://127.0.0.1:0", echo, proxy_protocol=True) as listener:
        await listener.rehearse("deny 198.51.100.9")
        with Client(listener) as proxy:
            assert await proxy.ask(of("198.51.100.9", b"x")) == b"x"
            assert await proxy.ask(of("198.51.100.1", b"y")) == b"y"
        report = await listener.get_rehearsal()
        assert report is not None
        assert (report.state, report.reason) == ("running", None)
        assert (report.seen, report.newly_refused) == (2, {"source_forbidden": 1})


async def test_a_header_that_names_nobody_is_about_the_proxy_itself() -> None:
    async with open_listener("udp", "udp://127.0.0.1:0", echo, proxy_protocol=True) as listener:
        with Client(listener) as proxy:
            assert await proxy.ask(encode(ProxyHeader(command=Command.LOCAL)) + b"alive?") == b"alive?"
            assert listener.connections[0].peername == proxy.name


async def test_the_longest_payload_is_measured_without_its_header() -> None:
    async with open_listener(
        "udp", "udp://127.0.0.1:0", echo, proxy_protocol=True, udp={"max_datagram_bytes": 5}
    ) as listener:
        with Client(listener) as proxy:
            assert await proxy.ask(of("198.51.100.1", b"12345")) == b"12345"
            proxy.send(of("198.51.100.1", b"123456"))
            await until(lambda: drops(listener) == {"too_long": 1})
