"""Datagram rates, health checks, and what the sockets of a datagram listener are told."""

from __future__ import annotations

import resource
import socket
from typing import Any

import pytest
from tests.core.conftest import until
from tests.core.datagrams.udp import Client, assert_all_accounted_for, drops, echo

from esockd_core import DatagramConnection, InvalidOption, UdpOptions, open_listener

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"
EVERYWHERE = pytest.mark.parametrize("address", [ADDRESS, "udp://*:0"], ids=["one address", "all"])
CHECK = (b"ping", b"pong")


@pytest.mark.parametrize("check", [(b"ping", b"p" * 65_508), (b"p" * 65_508, b"pong")], ids=["reply", "request"])
def test_a_health_check_that_no_datagram_can_hold_is_an_error(check: tuple[bytes, bytes]) -> None:
    with pytest.raises(InvalidOption, match="at most 65,507 bytes"):
        UdpOptions(health_check=check)


@EVERYWHERE
async def test_a_health_check_is_answered_without_a_connection(address: str) -> None:
    async with open_listener("udp", address, echo, udp={"health_check": CHECK}, max_connections=1) as listener:
        with Client(listener) as checker, Client(listener) as client:
            assert await client.ask(b"x") == b"x"
            assert await checker.ask(b"ping") == b"pong"  # though there is no room
            assert await client.ask(b"ping") == b"ping"  # it has a connection
            checker.send(b"ping ")
            await until(lambda: drops(listener) == {"max_limit": 1})
            stats = listener.stats()
            assert (stats.accepted, stats.datagrams_answered, stats.current_connections) == (1, 1, 1)
            assert_all_accounted_for(stats, sent=4)


async def test_a_health_check_of_a_peer_that_the_rules_keep_out_is_not_answered() -> None:
    async with open_listener(
        "udp", ADDRESS, echo, udp={"health_check": CHECK}, access_rules=["allow 127.0.0.1", "deny all"]
    ) as listener:
        with Client(listener) as good, Client(listener, source="127.0.0.2") as bad:
            bad.send(b"ping")
            assert await good.ask(b"ping") == b"pong"
            assert bad.received() == []
            assert drops(listener) == {"forbidden": 1}
            assert listener.stats().closed_forbidden == 1


async def test_a_suspended_listener_answers_no_health_checks() -> None:
    async with open_listener("udp", ADDRESS, echo, udp={"health_check": CHECK}) as listener:
        with Client(listener) as checker:
            await listener.suspend()
            checker.send(b"ping")
            await until(lambda: drops(listener) == {"suspended": 1})
            await listener.resume()
            assert await checker.ask(b"ping") == b"pong"


@EVERYWHERE
async def test_datagrams_above_the_rate_of_all_peers_are_dropped(address: str) -> None:
    async with open_listener("udp", address, echo, udp={"max_packet_rate": "3/h burst 3"}) as listener:
        with Client(listener) as one, Client(listener) as other:
            assert await one.ask(b"1") == b"1"
            assert await other.ask(b"2") == b"2"
            assert await one.ask(b"3") == b"3"
            one.send(b"4")
            other.send(b"5")
            await until(lambda: drops(listener) == {"packet_rate": 2})
            await listener.set_options(udp={"max_packet_rate": None})
            assert await one.ask(b"6") == b"6"
            assert_all_accounted_for(listener.stats(), sent=6)


async def test_a_peer_over_its_own_rate_does_not_spend_what_all_share() -> None:
    limits = UdpOptions(max_packet_rate="4/h burst 4", max_packet_rate_per_peer="2/h burst 2")
    async with open_listener("udp", ADDRESS, echo, udp=limits) as listener:
        with Client(listener) as greedy, Client(listener) as other:
            for number in range(2):
                assert await greedy.ask(b"%d" % number) == b"%d" % number
            greedy.send(b"x", b"x", b"x", b"x")
            assert await other.ask(b"1") == b"1"
            assert await other.ask(b"2") == b"2"
            assert drops(listener) == {"packet_rate": 4}


async def test_a_peer_that_the_rules_keep_out_spends_no_token() -> None:
    async with open_listener(
        "udp", ADDRESS, echo, udp={"max_packet_rate": "1/h"}, access_rules=["deny 127.0.0.2"]
    ) as listener:
        with Client(listener) as good, Client(listener, source="127.0.0.2") as bad:
            bad.send(*[b"x"] * 5)
            assert await good.ask(b"x") == b"x"
            assert drops(listener) == {"forbidden": 5}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_ttl_and_type_of_service_are_those_of_the_socket(host: str) -> None:
    seen: list[int] = []

    async def look(connection: DatagramConnection) -> None:
        sock: socket.socket = connection._raw_socket()
        if sock.family == socket.AF_INET6:
            level, names = socket.IPPROTO_IPV6, (socket.IPV6_UNICAST_HOPS, socket.IPV6_TCLASS)
        else:
            level, names = socket.IPPROTO_IP, (socket.IP_TTL, socket.IP_TOS)
        seen.extend(sock.getsockopt(level, name) for name in names)

    address = f"udp://[{host}]:0" if ":" in host else f"udp://{host}:0"
    async with open_listener("udp", address, look, udp={"ttl": 7, "tos": 16}) as listener:
        with Client(listener, host) as client:
            client.send(b"x")
            await until(lambda: seen)
        plan = await listener.plan_options(udp={"ttl": None, "tos": 8})
        assert plan.needs_reopen == ("udp.ttl",)
    assert seen == [7, 16]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_packet_rate_per_peer": "fast"},
        {"health_check": (b"", b"x")},
        {"health_check": ("ping", "pong")},
        {"health_check": b"ping"},
        {"ttl": 0},
        {"tos": 256},
    ],
)
def test_a_wrong_limit_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        UdpOptions(**wrong)


def test_a_health_check_may_be_given_as_a_list() -> None:
    assert UdpOptions(health_check=[b"a", b"b"]).health_check == (b"a", b"b")  # type: ignore[arg-type]


async def test_a_change_is_rehearsed_on_the_peers_that_arrive() -> None:
    async with open_listener("udp", ADDRESS, echo) as listener:
        await listener.rehearse("deny 127.0.0.2", duration=60, max_connections=1)
        with Client(listener) as one, Client(listener) as more, Client(listener, source="127.0.0.2") as other:
            for client in (one, more, other, one):
                assert await client.ask(b"x") == b"x"
        report = await listener.cancel_rehearsal()
        assert (report.seen, report.newly_refused) == (3, {"closed_max_limit": 1, "closed_forbidden": 1})


async def test_the_open_file_limit_does_not_lower_how_many_peers_there_may_be() -> None:
    beyond = resource.getrlimit(resource.RLIMIT_NOFILE)[0] + 1
    async with open_listener("udp", ADDRESS, echo, max_connections=beyond) as listener:
        before = listener.options
        await listener.set_options(max_connections=None)
        assert (before.max_connections, listener.options.max_connections) == (beyond, None)
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
