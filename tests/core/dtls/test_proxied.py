"""DTLS behind a proxy: each datagram has a PROXY header, and the cookie proves the address of the client in it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import reasons, until
from tests.core.datagrams.udp import assert_all_accounted_for, drops, echo
from tests.core.dtls.peers import Client, Peer
from tests.core.forwarding.peers import forwarding
from tests.ports import steady_address

from esockd_core import DatagramConnection, DtlsOptions, Listener, open_listener
from esockd_core.handlers import ForwardHandler
from esockd_proxyproto import Endpoint, ProxyHeader, Transport, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

pytestmark = pytest.mark.anyio

SOURCE = ("198.51.100.1", 4000)
OTHER = ("198.51.100.2", 4000)


class ProxiedPeer(Peer):
    """A client behind a proxy, and the proxy's socket."""

    def __init__(self, listener: Listener, named: tuple[str, int] = SOURCE, source: str = "127.0.0.1") -> None:
        super().__init__(listener, source=source)
        self.named = named

    def send_all(self, datagrams: Iterable[bytes]) -> None:
        header = ProxyHeader(
            source=Endpoint(*self.named), destination=Endpoint("192.0.2.1", 5684), transport=Transport.DGRAM
        )
        super().send_all(encode(header) + datagram for datagram in datagrams)

    async def prove(self) -> list[bytes]:
        """Ask for a cookie, and return the hello that has it."""
        self.send_all(self.client.hello())
        self.client.feed(await self.receive_datagram())
        return self.client.take()


@asynccontextmanager
async def serving(dtls: DtlsOptions, **options: Any) -> AsyncIterator[Listener]:
    options = {"proxy_protocol": {"trusted": ["127.0.0.1"]}} | options
    with anyio.fail_after(60):
        async with open_listener("dtls", f"dtls://{steady_address()}", echo, dtls=dtls, **options) as listener:
            yield listener


@pytest.mark.parametrize("host", ["127.0.0.1", "*"], ids=["one address", "all"])
async def test_a_client_behind_a_proxy_is_served(dtls: DtlsOptions, host: str) -> None:
    options: dict[str, Any] = {"dtls": dtls, "proxy_protocol": True}
    async with open_listener("dtls", f"dtls://{host}:0", echo, **options) as listener:
        with ProxiedPeer(listener) as peer:
            assert await (await peer.shake()).ask(b"hello") == b"hello"
            (connection,) = listener.connections
            assert isinstance(connection, DatagramConnection)
            assert (connection.peername, connection.socket_peername) == (SOURCE, peer.name)
            assert connection.tls is not None
            assert connection.tls.version == "DTLSv1.2"
            assert connection.proxy is not None
            assert connection.proxy.transport is Transport.DGRAM
        assert_all_accounted_for(listener.stats())


async def test_a_cookie_proves_the_address_of_one_client_only(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with ProxiedPeer(listener) as peer:
            proven = await peer.prove()
            peer.named = OTHER
            peer.send_all(proven)
            await until(lambda: listener.stats().datagrams_answered == 2)
            assert (listener.stats().accepted, len(listener._site.registry)) == (0, 0)
            peer.named = SOURCE
            peer.send_all(proven)
            await until(lambda: listener.stats().accepted == 1)


async def test_the_rules_judge_the_client_before_it_is_answered(dtls: DtlsOptions) -> None:
    async with serving(dtls, access_rules=["deny 198.51.100.2", "allow all"]) as listener:
        with ProxiedPeer(listener, OTHER) as denied, ProxiedPeer(listener) as peer:
            denied.send_all(denied.client.hello())
            assert await (await peer.shake()).ask(b"hello") == b"hello"
            assert denied.take_datagram() is None
        assert drops(listener)["forbidden"] == 1
        assert (listener.stats().accepted, listener.stats().closed_forbidden) == (1, 1)
        assert [refusal.peer for refusal in listener.refusals] == [OTHER]


async def test_rules_that_judge_proxies_let_any_client_of_theirs_in(dtls: DtlsOptions) -> None:
    rules = ["allow 127.0.0.1", "deny all"]
    async with serving(dtls, access_rules=rules, proxy_protocol={"access_rules_on": "peer"}) as listener:
        with ProxiedPeer(listener) as peer:
            assert await (await peer.shake()).ask(b"hello") == b"hello"


async def test_each_datagram_needs_the_header_of_a_trusted_proxy(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with ProxiedPeer(listener) as peer, ProxiedPeer(listener, source="127.0.0.2") as stranger:
            await (await peer.shake()).ask(b"hello")
            stranger.send_all(stranger.client.hello())
            peer.socket.sendto(peer.client.write(b"without a header"), peer.target)
            assert await peer.ask(b"still there") == b"still there"
            assert stranger.take_datagram() is None
        assert drops(listener)["forbidden"] == drops(listener)["proxy_invalid"] == 1
        assert_all_accounted_for(listener.stats())


async def test_limits_of_a_source_hold_for_clients_that_have_proven_their_address(dtls: DtlsOptions) -> None:
    async with serving(dtls, max_connections_per_source=1) as listener:
        with ProxiedPeer(listener) as first, ProxiedPeer(listener, ("198.51.100.1", 4001)) as second:
            await first.shake()
            proven = await second.prove()  # which spends nothing
            second.send_all(proven)
            assert await reasons(listener) == {"source_max_limit": 1}
            assert await first.ask(b"hello") == b"hello"
            assert second.take_datagram() is None


async def test_a_client_that_starts_again_replaces_its_own_session_only(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with ProxiedPeer(listener) as peer, ProxiedPeer(listener, OTHER) as other:
            await (await peer.shake()).ask(b"hello")
            await (await other.shake()).ask(b"hello")
            peer.start_again()
            assert await (await peer.shake()).ask(b"again") == b"again"
            assert await other.ask(b"still there") == b"still there"
            assert listener.stats().shutdown_counts == {"replaced": 1}
            assert {connection.peername for connection in listener.connections} == {SOURCE, OTHER}


async def test_a_suspended_listener_answers_no_new_client(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with ProxiedPeer(listener) as peer, ProxiedPeer(listener, OTHER) as late:
            await (await peer.shake()).ask(b"hello")
            await listener.suspend()
            late.send_all(late.client.hello())
            assert await peer.ask(b"still there") == b"still there"
            assert late.take_datagram() is None
            assert drops(listener)["suspended"] == 1


async def test_a_forwarder_in_front_names_its_clients(dtls: DtlsOptions) -> None:
    async with serving(dtls) as service:
        handler = ForwardHandler(f"udp://127.0.0.1:{service.port}", send_proxy="v2")
        async with forwarding(handler, "udp://127.0.0.1:0") as gateway:
            with Peer(gateway, Client()) as peer:
                assert await (await peer.shake()).ask(b"hello") == b"hello"
                (connection,) = service.connections
                assert connection.peername == peer.name
