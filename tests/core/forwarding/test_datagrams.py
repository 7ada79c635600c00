"""Forwarding datagrams: a socket for each client, boundaries kept both ways, and nothing lost without being counted."""

from __future__ import annotations

import errno
import logging
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import EventCount, reasons, settle, until
from tests.core.datagrams.udp import Client, Echo, assert_all_accounted_for, drops
from tests.core.dtls.peers import Peer
from tests.core.forwarding.peers import forwarding, open_files
from tests.ports import steady_port

from esockd_core import DatagramConnection, DtlsOptions, InvalidOption, Listener, open_listener
from esockd_core.handlers import ForwardHandler, echo
from esockd_proxyproto import Transport, decode_datagram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"


@asynccontextmanager
async def gateway(
    upstream: Listener, address: str = ADDRESS, *, send_proxy: Any = None, **options: Any
) -> AsyncIterator[Listener]:
    handler = ForwardHandler(f"udp://127.0.0.1:{upstream.port}", send_proxy=send_proxy)
    async with forwarding(handler, address, **options) as listener:
        yield listener


@pytest.mark.parametrize("address", [ADDRESS, "udp://*:0"])
async def test_datagrams_go_to_the_upstream_and_back_with_their_boundaries(address: str) -> None:
    async with open_listener("service", ADDRESS, Echo()) as service, gateway(service, address) as listener:
        with Client(listener) as client:
            for size in (0, 1, 1_472, 9_000, 65_507):
                assert await client.ask(bytes(size)) == bytes(size)
        assert_all_accounted_for(listener.stats(), sent=5)
        assert listener.stats().datagrams_out == 5
        assert listener.stats().datagrams_delivered == 5


async def test_an_upstream_without_a_scheme_is_reached_as_its_clients_come() -> None:
    async with (
        open_listener("service", ADDRESS, Echo()) as service,
        forwarding(ForwardHandler(f"localhost:{service.port}"), ADDRESS) as listener,
    ):
        with Client(listener) as client:
            assert await client.ask(b"by name") == b"by name"


async def test_each_client_has_a_socket_of_its_own_which_ends_with_its_session() -> None:
    with EventCount() as events:
        async with open_listener("service", ADDRESS, Echo()) as service:
            before = open_files()
            async with gateway(service, udp={"idle_timeout": 1.0}, on_event=events.note) as listener:
                with Client(listener) as one, Client(listener) as other:
                    assert await one.ask(b"one") == b"one"
                    assert await other.ask(b"other") == b"other"
                    assert await one.ask(b"again") == b"again"
                    first, second = service.connections
                    assert first.peername != second.peername
                    assert isinstance(first, DatagramConnection)
                    assert first.datagrams_in == 2
                    assert await reasons(listener, 2) == {"idle_timeout": 2}
            await until(lambda: open_files() <= before)


async def test_a_client_gets_datagrams_of_its_upstream_only() -> None:
    async with open_listener("service", ADDRESS, Echo()) as service, gateway(service) as listener:
        with Client(listener) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            assert await client.ask(b"x") == b"x"
            (session,) = service.connections
            stranger.sendto(b"forged", session.peername)
            assert await client.ask(b"y") == b"y"
        assert listener.stats().datagrams_out == 2


async def test_datagrams_that_came_before_the_upstream_is_connected_are_forwarded_in_their_order() -> None:
    async with open_listener("service", ADDRESS, Echo()) as service, gateway(service) as listener:
        with Client(listener) as client:
            client.send(b"a", b"", b"b")
            assert [await client.receive() for _ in range(3)] == [b"a", b"", b"b"]


async def test_a_closed_upstream_port_ends_the_session_and_never_the_listener(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "esockd_core")
    port = steady_port()
    async with forwarding(ForwardHandler(f"udp://127.0.0.1:{port}"), ADDRESS) as listener:
        with Client(listener) as client:
            client.send(b"nobody hears this")
            assert await reasons(listener) == {"upstream_failed": 1}
            assert listener.stats().datagrams_unsent == {"ECONNREFUSED": 1}
            async with open_listener("service", f"udp://127.0.0.1:{port}", Echo()):
                assert await client.ask(b"hello") == b"hello"
        assert_all_accounted_for(listener.stats(), sent=2)
    assert f"upstream udp://127.0.0.1:{port} failed: Connection refused" in caplog.text
    assert f"upstream udp://127.0.0.1:{port} works again" in caplog.text


async def test_a_narrow_way_to_the_upstream_costs_a_datagram_and_not_the_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Narrow(socket.socket):
        """Hears once from ICMP that a datagram was too long for the way."""

        told = False

        def recv_into(self, *arguments: Any) -> int:
            if not self.told:
                self.told = True
                raise OSError(errno.EMSGSIZE, "Message too long")
            return super().recv_into(*arguments)

    async with open_listener("service", ADDRESS, Echo()) as service, gateway(service) as listener:
        with Client(listener) as client:
            monkeypatch.setattr(socket, "socket", Narrow)
            assert await client.ask(b"one") == b"one"
            assert await client.ask(b"two") == b"two"
        assert len(service.connections) == len(listener.connections) == 1
        assert listener.stats().datagrams_unsent == {"EMSGSIZE": 1}
    assert "failed" not in caplog.text


async def test_the_next_datagram_goes_to_another_upstream_when_one_is_closed() -> None:
    async with open_listener("service", ADDRESS, Echo()) as service:
        handler = ForwardHandler([f"127.0.0.1:{steady_port()}", f"udp://127.0.0.1:{service.port}"])
        async with forwarding(handler, ADDRESS) as listener:
            with Client(listener) as client:
                client.send(b"lost")
                await reasons(listener)
                assert await client.ask(b"hello") == b"hello"


async def test_an_address_of_an_upstream_is_skipped_when_it_is_closed() -> None:
    async with open_listener("service", "udp://[::1]:0", Echo()) as service:
        assert service.port is not None
        async with forwarding(ForwardHandler(service.port), ADDRESS) as listener:  # 127.0.0.1 first
            with Client(listener) as client:
                client.send(b"lost")
                await reasons(listener)
                assert await client.ask(b"hello") == b"hello"


async def test_each_datagram_has_a_proxy_header_if_asked_for() -> None:
    async with (
        open_listener("service", ADDRESS, echo, proxy_protocol=True) as service,
        gateway(service, send_proxy="v2") as listener,
    ):
        with Client(listener) as client:
            assert await client.ask(b"one") == b"one"
            assert await client.ask(b"") == b""
            (seen,) = service.connections
            assert isinstance(seen, DatagramConnection)
            assert seen.peername == client.name
            assert seen.datagrams_in == 2
            assert seen.proxy is not None
            assert seen.proxy.transport is Transport.DGRAM


async def test_a_header_names_a_moved_session_by_its_new_address_and_forged_ids_are_dropped() -> None:
    udp: dict[str, Any] = {"session_id": lambda datagram: datagram[:1] or None}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(0)
        handler = ForwardHandler(service.getsockname(), send_proxy="v2")
        for may_move in (None, lambda *_: True):
            async with forwarding(handler, ADDRESS, udp=udp | {"may_move": may_move}, shutdown_timeout=0.1) as listener:
                with Client(listener) as one, Client(listener) as other:
                    one.send(b"id")
                    await until(lambda listener=listener: listener.stats().datagrams_delivered)  # type: ignore[misc]
                    await settle()
                    other.send(b"id too")
                    await until(lambda listener=listener: listener.stats().datagrams_in == 2)  # type: ignore[misc]
                    header, payload = decode_datagram(service.recv(100))
                    assert (header.source, payload) == (one.name, b"id")
                    if may_move is None:
                        assert drops(listener) == {"not_moved": 1}
                    else:
                        header, payload = decode_datagram(service.recv(100))
                        assert (header.source, payload) == (other.name, b"id too")
                    assert_all_accounted_for(listener.stats(), sent=2)


async def test_a_drain_waits_for_the_answer_of_the_upstream() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(20)
        async with forwarding(ForwardHandler(service.getsockname()), ADDRESS, shutdown_timeout=20) as listener:
            with Client(listener) as answered, Client(listener) as waiting:
                answered.send(b"answered")
                waiting.send(b"waiting")
                await until(lambda: listener.stats().datagrams_delivered == 2)
                await settle()
                peers = dict(service.recvfrom(100) for _ in range(2))
                service.sendto(b"answer", peers[b"answered"])
                assert await answered.receive() == b"answer"
                async with open_drain(listener):
                    assert await reasons(listener) == {"shutdown": 1}
                    service.sendto(b"late", peers[b"waiting"])
                    assert await waiting.receive() == b"late"
                assert listener.stats().shutdown_counts == {"shutdown": 2}


@asynccontextmanager
async def open_drain(listener: Listener) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.drain)
        yield


async def test_a_killed_session_closes_its_socket() -> None:
    async with open_listener("service", ADDRESS, Echo()) as service:
        before = open_files()
        async with gateway(service) as listener:
            with Client(listener) as client:
                assert await client.ask(b"x") == b"x"
                (session,) = listener.connections
                assert await listener.kill_connection(session.id)
                assert await reasons(listener) == {"killed": 1}
        await until(lambda: open_files() <= before)


async def test_an_answer_that_the_client_cannot_have_is_counted() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as service:
        service.bind(("::1", 0))
        service.settimeout(20)
        async with forwarding(ForwardHandler(("::1", service.getsockname()[1])), ADDRESS) as listener:
            with Client(listener) as client:
                client.send(b"question")
                await until(lambda: listener.stats().datagrams_delivered)
                await settle()
                peer = service.recvfrom(100)[1]
                service.sendto(bytes(65_527), peer)  # 20 bytes more than IPv4 can carry
                service.sendto(b"short", peer)
                assert await client.receive() == b"short"
        assert listener.stats().datagrams_unsent == {"EMSGSIZE": 1}


async def test_clients_of_dtls_are_forwarded_as_plain_datagrams(certificates: Path) -> None:
    dtls = DtlsOptions(certfile=certificates / "localhost.pem")
    async with (
        open_listener("service", ADDRESS, Echo()) as service,
        gateway(service, "dtls://127.0.0.1:0", dtls=dtls) as listener,
    ):
        with Peer(listener) as one, Peer(listener) as other:
            await one.shake()
            await other.shake()
            for size in (1, 1_472, 16_384):
                assert await one.ask(b"1" * size) == b"1" * size
                assert await other.ask(b"2" * size) == b"2" * size
            assert [connection.bytes_in for connection in service.connections] == [17_857] * 2
            assert [connection.peername for connection in listener.connections] == [one.name, other.name]
            assert listener.stats().datagrams_delivered == 6
        assert_all_accounted_for(listener.stats())
        assert listener.stats().datagrams_unsent == {}


async def test_answers_that_no_record_of_dtls_holds_are_counted(certificates: Path) -> None:
    dtls = DtlsOptions(certfile=certificates / "localhost.pem")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.setblocking(False)
        async with forwarding(ForwardHandler(service.getsockname()), "dtls://127.0.0.1:0", dtls=dtls) as listener:
            with Peer(listener) as client:
                (await client.shake()).send(b"question")
                await anyio.wait_readable(service)
                question, peer = service.recvfrom(100)
                assert question == b"question"
                for answer in (bytes(16_385), b"", b"short"):
                    service.sendto(answer, peer)
                assert await client.receive() == b"short"
                assert listener.stats().datagrams_unsent == {"EMSGSIZE": 2}
                assert len(listener.connections) == 1


async def test_a_client_of_dtls_is_told_that_its_upstream_is_closed(certificates: Path) -> None:
    dtls = DtlsOptions(certfile=certificates / "localhost.pem")
    async with forwarding(ForwardHandler(steady_port()), "dtls://127.0.0.1:0", dtls=dtls) as listener:
        with Peer(listener) as client:
            (await client.shake()).send(b"nobody hears this")
            await client.wait_closed()
            assert await reasons(listener) == {"upstream_failed": 1}
            assert listener.stats().datagrams_unsent == {"ECONNREFUSED": 1}
        assert_all_accounted_for(listener.stats())


async def test_a_listener_is_not_forwarded_to_itself() -> None:
    port = steady_port()
    async with forwarding(ForwardHandler(port), f"udp://127.0.0.1:{port}") as listener:
        with Client(listener) as client:
            client.send(b"x")
            await until(lambda: listener.stats().shutdown_counts or listener.stats().datagrams_unsent)
            assert listener.stats().accepted == 1


@pytest.mark.parametrize(
    ("upstreams", "options", "address", "told"),
    [
        ("tls://localhost:1", {}, ADDRESS, "tls://localhost:1 is for streams, and clients of udp://127.0.0.1:0 send"),
        ("unix:/x", {}, ADDRESS, "unix:/x is for streams"),
        ("udp://a:1", {}, "127.0.0.1:0", "udp://a:1 is for datagrams, and clients of 127.0.0.1:0 send streams"),
        ("a:1", {"send_proxy": "v1"}, ADDRESS, "version 1 knows TCP only"),
    ],
)
async def test_upstreams_that_cannot_serve_the_clients_are_refused(
    upstreams: str, options: dict[str, Any], address: str, told: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        async with open_listener("gateway", address, ForwardHandler(upstreams, **options)):
            pass
    assert told in str(caught.value)


@pytest.mark.parametrize("upstreams", [["udp://a:1", "tls://b:1"], ["unix:/x", "udp://1"], "dtls://a:1"])
def test_upstreams_that_no_client_could_have_are_refused(upstreams: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        ForwardHandler(upstreams)
    assert caught.value.option == "upstreams"
