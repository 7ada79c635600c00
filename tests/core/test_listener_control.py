"""`ListenerControl`, the one interface to look at a listener and to change it: every method, by its effect."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, rest, until

from esockd_cidr import CidrError, DuplicateRule, InvalidRule
from esockd_core import (
    AddressInUse,
    CallbackHandler,
    ConnectionInfo,
    InvalidOption,
    Listener,
    ListenerControl,
    Refused,
    Server,
    StreamConnection,
    open_listener,
)
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from esockd_core import Handler

pytestmark = pytest.mark.anyio

HEADER = encode(ProxyHeader(2, source=Endpoint("192.0.2.7", 41000), destination=Endpoint("192.0.2.1", 443)))


async def served(listener: Listener, source: str = "127.0.0.1") -> socket.socket:
    """A client that has had an answer."""
    client = connect(listener, source)
    assert await answer(client) == b"hello"
    return client


async def ids(control: ListenerControl, network: str | None = None) -> list[int]:
    return [connection.id for connection in (await control.list_connections(network)).connections]


def is_a_control(listener: Listener) -> ListenerControl:
    """What the type checker is asked."""
    return listener


async def test_a_listener_is_its_own_control(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        assert is_a_control(listener) is listener


async def test_a_status_tells_name_state_and_addresses() -> None:
    before = time.time()
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        status = await listener.get_status()
        assert (status.name, status.address, status.state) == ("echo", "127.0.0.1:0", "running")
        assert status.addresses == (f"127.0.0.1:{listener.port}",)
        assert status.port == listener.port
        assert status.opened_at is not None
        assert before <= status.opened_at <= time.time()
        await listener.suspend()
        assert (await listener.get_status()).state == "suspended"
    status = await listener.get_status()
    assert (status.state, status.addresses, status.port) == ("closed", (), None)


async def test_stats_tell_counts_bytes_and_reasons(handler: Handler) -> None:
    """esockd's t_get_shutdown_count."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener:
            for _ in range(2):
                (await served(listener)).close()
            await until(lambda: not listener.connections)
            stats = await listener.get_stats()
            assert (stats.accepted, stats.refused, stats.current_connections) == (2, 0, 0)
            assert (stats.bytes_in, stats.bytes_out) == (10, 10)
            assert stats.shutdown_counts == {"normal": 2}
            assert stats.handshake_failures == {}


async def test_stats_tell_who_waits_in_the_kernels_queue(tmp_path: Path) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", 0, echo, tcp={"backlog": 7}) as listener:
            await listener.suspend()
            with connect(listener), connect(listener), connect(listener, "::1"):
                stats = await listener.get_stats()
                assert (stats.accept_queue_length, stats.accept_queue_limit) == (3, 14)
        assert (await listener.get_stats()).accept_queue_length is None
        async with open_listener("echo", f"unix:{tmp_path / 's'}", echo) as listener:
            assert (await listener.get_stats()).accept_queue_length is None


async def test_stats_tell_how_late_the_loop_and_the_handlers_were() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            clients = [await served(listener) for _ in range(5)]
            await until(lambda: listener.stats().accept_delays.count == 5 and listener.stats().loop_lags.count > 0)
            stats = await listener.get_stats()
            assert stats.accept_delays.total_s >= 0
            assert stats.accept_delays.quantile(0.5) is not None
            for client in clients:
                client.close()


async def test_acceptors_are_listed() -> None:
    """esockd's t_get_acceptors."""
    async with open_listener("echo", "127.0.0.1:0", echo, acceptors=4) as listener:
        acceptors = await listener.get_acceptors()
        assert [acceptor.id for acceptor in acceptors] == [0, 1, 2, 3]
        assert {acceptor.address for acceptor in acceptors} == set(listener.addresses)


async def test_refusals_are_listed_with_their_reason(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler, access_rules=["deny 127.0.0.2"]) as listener:
            with connect(listener, "127.0.0.2") as denied:
                await refused(denied)
            [refusal] = await listener.get_refusals()
            assert refusal.peer is not None
            assert refusal.peer[0] == "127.0.0.2"
            assert (refusal.stage, refusal.reason) == (Refused.FORBIDDEN, "access rule 0: deny 127.0.0.2")


async def refused(client: socket.socket) -> None:
    with suppress(ConnectionError):
        assert await rest(client) == b""


async def test_top_sources_tell_who_comes_most_often_refused_or_not() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", 0, echo, access_rules=["deny 127.0.0.2"]) as listener:
            first, second = await served(listener, "127.0.0.3"), await served(listener, "::1")
            for _ in range(3):
                with connect(listener, "127.0.0.2") as denied:
                    await refused(denied)
            (await served(listener, "127.0.0.3")).close()
            await until(lambda: len(listener.connections) == 2)
            top = await listener.get_top_sources()
            assert [(each.source, each.attempts, each.open_connections) for each in top] == [
                ("127.0.0.2", 3, 0),
                ("127.0.0.3", 2, 1),
                ("::/64", 1, 1),
            ]
            assert len(await listener.get_top_sources(1)) == 1
            first.close()
            second.close()


async def test_behind_a_proxy_the_sources_are_its_clients() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener:
            with connect(listener) as client:
                client.send(HEADER)
                assert await answer(client) == b"hello"
                [source] = await listener.get_top_sources()
                assert (source.source, source.open_connections) == ("192.0.2.7", 1)


async def test_rules_are_listed_and_changed_live(handler: Handler) -> None:
    """esockd's t_allow_deny: what is added at run time comes first."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler, access_rules=["allow 192.168.1.0/24"]) as listener:
            await listener.allow("10.10.0.0/16")
            await listener.deny("127.0.0.2")
            await listener.insert_rule(1, "deny 172.16.0.0/12")
            assert [str(rule) for rule in await listener.get_access_rules()] == [
                "deny 127.0.0.2",
                "deny 172.16.0.0/12",
                "allow 10.10.0.0/16",
                "allow 192.168.1.0/24",
            ]
            with connect(listener, "127.0.0.2") as denied:
                await refused(denied)
            match = await listener.test_rules("172.16.5.5")
            assert match is not None
            assert (str(match.rule), match.index) == ("deny 172.16.0.0/12", 1)
            assert await listener.test_rules("203.0.113.1") is None
            await listener.remove_rule("deny 127.0.0.2")
            (await served(listener, "127.0.0.2")).close()
            await listener.replace_rules("allow 127.0.0.1", "deny all")
            assert [str(rule) for rule in listener.access_rules] == ["allow 127.0.0.1", "deny all"]


async def test_a_bad_rule_changes_nothing() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 10.0.0.0/8"]) as listener:
        before = await listener.get_access_rules()
        with pytest.raises(InvalidRule):
            await listener.allow("10.0.0.0/33")
        with pytest.raises(DuplicateRule):
            await listener.deny("10.0.0.0/8")
        with pytest.raises(CidrError):
            await listener.insert_rule(9, "deny all")
        with pytest.raises(CidrError):
            await listener.remove_rule("allow all")
        with pytest.raises(CidrError):
            await listener.replace_rules("deny all", "oops")
        assert await listener.get_access_rules() == before


async def test_connections_are_listed_in_pages_oldest_first(handler: Handler) -> None:
    """esockd's t_get_current_connections."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener:
            clients = [await served(listener) for _ in range(5)]
            everyone = await ids(listener)
            assert everyone == sorted(everyone)
            paged: list[list[int]] = []
            after: int | None = 0
            while after is not None:
                page = await listener.list_connections(after=after, limit=2)
                paged.append([connection.id for connection in page.connections])
                after = page.after
            assert paged == [everyone[:2], everyone[2:4], everyone[4:]]
            for limit in (0, 1001):
                with pytest.raises(InvalidOption, match="1 to 1000"):
                    await listener.list_connections(limit=limit)
            for client in clients:
                client.close()


async def test_connections_are_found_by_network_and_by_id(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener:
            near, far = await served(listener), await served(listener, "127.1.0.1")
            assert len(await ids(listener)) == 2
            [number] = await ids(listener, "127.1.0.0/16")
            found = await listener.find_connection(number)
            assert isinstance(found, ConnectionInfo)
            assert found.peername == found.socket_peername == far.getsockname()
            assert found.sockname == ("127.0.0.1", listener.port)
            assert (found.bytes_in, found.bytes_out, found.state, found.draining) == (5, 5, "open", False)
            assert (found.tls, found.is_upgrading) == (None, False)
            assert await listener.find_connection(0) is None
            with pytest.raises(InvalidOption, match="33"):
                await listener.list_connections("10.0.0.0/33")
            near.close()
            far.close()


async def test_a_connection_behind_a_proxy_is_found_by_its_client() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener:
            with connect(listener) as waiting, connect(listener) as client:
                client.send(HEADER)
                await until(lambda: len(listener.connections) == 2 and listener.stats().upgrading == 1)
                [found] = (await listener.list_connections("192.0.2.0/24")).connections
                assert found.peername == ("192.0.2.7", 41000)
                [other] = (await listener.list_connections("127.0.0.1")).connections
                assert other.is_upgrading
                assert other.peername == waiting.getsockname()


async def test_a_connection_is_killed_by_id_and_its_handler_with_it() -> None:
    ended = anyio.Event()

    async def sleep(_: StreamConnection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.fail_after(20):
        async with open_listener("sleep", "127.0.0.1:0", sleep) as listener:
            with connect(listener) as client:
                await until(lambda: len(listener.connections) == 1)
                [number] = await ids(listener)
                assert await listener.kill_connection(number)
                await ended.wait()
                await refused(client)
                await until(lambda: listener.stats().shutdown_counts == {"killed": 1})
                assert not await listener.kill_connection(number)


async def test_connections_are_killed_by_network(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener:
            kept = await served(listener)
            gone = [await served(listener, f"127.1.0.{number + 1}") for number in range(3)]
            assert await listener.kill_connections("127.1.0.0/16") == 3
            for client in gone:
                await refused(client)
                client.close()
            await until(lambda: listener.stats().shutdown_counts == {"killed": 3})
            assert await answer(kept) == b"hello"
            with pytest.raises(InvalidOption):
                await listener.kill_connections("nobody")
            assert await listener.kill_connections("all") == 1
            kept.close()


async def test_killing_more_connections_than_a_chunk_gives_the_loop_its_turns() -> None:
    class Silent(CallbackHandler):
        pass

    with anyio.fail_after(30):
        async with open_listener("silent", "127.0.0.1:0", Silent()) as listener:
            clients = [connect(listener) for _ in range(300)]
            await until(lambda: len(listener.connections) == 300)
            assert await listener.kill_connections("all") == 300
            await until(lambda: not listener.connections)
            for client in clients:
                client.close()


async def test_suspend_and_resume_reach_the_listener() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            control = is_a_control(listener)
            await control.suspend()
            with connect(listener) as client:
                await control.resume()
                assert await answer(client) == b"hello"


async def test_reopen_at_another_address_keeps_connections_and_tells_a_taken_one() -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo) as listener,
            open_listener("other", "127.0.0.1:0", echo) as other,
        ):
            control, client = is_a_control(listener), await served(listener)
            with pytest.raises(AddressInUse):
                await control.reopen(f"127.0.0.1:{other.port}")
            await control.reopen("127.0.0.2:0")
            assert listener.addresses == (f"127.0.0.2:{listener.port}",)
            assert await answer(client) == b"hello"
            client.close()


@pytest.mark.parametrize("way", ["close", "drain", "kill"])
async def test_every_way_to_close_ends_the_listener(way: str) -> None:
    with anyio.fail_after(20):
        async with Server() as server:
            listener = await server.open("echo", "127.0.0.1:0", echo, shutdown_timeout=0.1)
            control, client = is_a_control(listener), await served(listener)
            match way:
                case "close":
                    await control.close()
                case "drain":
                    await control.drain(timeout=0.1, rate=100)
                case "kill":
                    await control.kill()
            assert (await control.get_status()).state == "closed"
            assert await rest(client) == b""
            client.close()
