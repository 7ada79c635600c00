"""Who is let in: the order of the checks, limits that are exact, and counters that add up."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import answer, connect, echo, rest, until

from esockd_core import Refused, Stats, open_listener

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


def taken(stats: Stats) -> int:
    """Sockets that accept(2) returned."""
    return (
        stats.accepted
        + stats.closed_early
        + stats.closed_forbidden
        + stats.closed_max_limit
        + stats.closed_rate_limited
        + stats.closed_overloaded
        + stats.closed_other_reasons
    )


class CountingLimiter:
    """Has so many tokens, and none ever again."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked = 0

    def try_acquire(self, n: int = 1, /) -> bool:
        self.asked += 1
        self.tokens -= n
        return self.tokens >= 0

    def wait_time(self, n: int = 1, /) -> float:
        return 0.0

    async def acquire(self, n: int = 1, /) -> None:
        raise NotImplementedError


async def test_a_denied_peer_and_a_dead_socket_spend_neither_token_nor_place() -> None:
    limiter = CountingLimiter(1)
    async with open_listener(
        "echo", "127.0.0.1:0", echo, limiter=limiter, max_connections=1, access_rules=["deny 127.0.0.2"]
    ) as listener:
        await listener.suspend()
        dead = connect(listener)
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dead.close()
        with connect(listener, "127.0.0.2") as denied, connect(listener) as allowed:
            await listener.resume()
            assert await rest(denied) == b""
            assert await answer(allowed, b"x") == b"x"
        assert limiter.asked == 1
    stats = listener.stats()
    assert (stats.closed_early, stats.closed_forbidden, stats.accepted) == (1, 1, 1)
    assert [refusal.stage for refusal in listener.refusals] == [Refused.FORBIDDEN]


async def test_a_full_listener_spends_no_token() -> None:
    limiter = CountingLimiter(10)
    async with open_listener("echo", "127.0.0.1:0", echo, limiter=limiter, max_connections=1) as listener:
        with connect(listener) as first:
            assert await answer(first, b"x") == b"x"
            with connect(listener) as second:
                assert await rest(second) == b""
        assert limiter.asked == 1


@pytest.mark.parametrize("acceptors", [1, 4])
async def test_a_stampede_is_let_in_to_the_exact_number_and_every_socket_is_counted(
    handler: Handler, acceptors: int
) -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", handler, max_connections=100, acceptors=acceptors, shutdown_timeout=0
    ) as listener:
        clients = [connect(listener) for _ in range(500)]
        await until(lambda: taken(listener.stats()) == 500)
        stats = listener.stats()
        assert (stats.accepted, stats.closed_max_limit, stats.current_connections) == (100, 400, 100)
        for client in clients:
            client.close()
        await until(lambda: listener.stats().current_connections == 0)
        with connect(listener) as late:
            assert await answer(late, b"x") == b"x"
    stats = listener.stats()
    assert sum(stats.shutdown_counts.values()) == stats.accepted == 101


async def test_the_first_matching_of_thousands_of_rules_decides() -> None:
    rules = [f"deny 10.{number // 256}.{number % 256}.0/24" for number in range(5_000)]
    rules += ["deny 127.0.0.3", "allow 127.0.0.0/8", "deny all"]
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=rules) as listener:
        with connect(listener) as allowed, connect(listener, "127.0.0.3") as denied:
            assert await answer(allowed, b"x") == b"x"
            assert await rest(denied) == b""
        assert "127.0.0.3" in listener.refusals[-1].reason


async def test_a_live_change_of_the_rules_holds_for_the_next_client() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with connect(listener) as before:
            assert await answer(before, b"x") == b"x"
            listener.access_rules.prepend("deny 127.0.0.1")
            with connect(listener) as after:
                assert await rest(after) == b""
            assert await answer(before, b"x") == b"x"


async def test_a_rate_of_one_admits_one() -> None:
    """esockd's t_rate_limitted, whose limiter admitted nobody at capacity 1."""
    async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate="1/h") as listener:
        with connect(listener) as first, connect(listener) as second:
            assert await answer(first, b"x") == b"x"
            assert await rest(second) == b""
        assert (listener.stats().accepted, listener.stats().closed_rate_limited) == (1, 1)


async def test_connections_of_one_source_are_limited_and_its_places_come_back() -> None:
    async with open_listener("echo", 0, echo, max_connections_per_source=1) as listener:
        for source, other in (("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.3")):
            for _ in range(2):
                with connect(listener, source) as first, connect(listener, source) as second:
                    assert await answer(first, b"x") == b"x"
                    assert await rest(second) == b""
                    with connect(listener, other) as third:
                        assert await answer(third, b"x") == b"x"
                await until(lambda: listener.stats().current_connections == 0)
        assert listener.stats().closed_max_limit == 4


async def test_the_rate_of_one_source_does_not_spend_what_all_share() -> None:
    limiter = CountingLimiter(10)
    async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate_per_source="1/h", limiter=limiter) as listener:
        with connect(listener) as first, connect(listener) as second, connect(listener, "127.0.0.2") as other:
            assert await answer(first, b"x") == b"x"
            assert await rest(second) == b""
            assert await answer(other, b"x") == b"x"
        assert limiter.asked == 2


async def test_places_of_unix_clients_come_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with open_listener("echo", f"unix:{path}", echo, max_connections_per_source=1) as listener:
        for _ in range(3):
            async with await anyio.connect_unix(path) as client:
                await client.send(b"x")
                with anyio.fail_after(30):
                    assert await client.receive() == b"x"
            await until(lambda: listener.stats().current_connections == 0)
        assert listener.stats().accepted == 3


async def test_a_rule_can_deny_unix_clients(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with open_listener("echo", f"unix:{path}", echo, access_rules=["deny unix:"]) as listener:
        async with await anyio.connect_unix(path) as client:
            with anyio.fail_after(30), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await client.receive()
        assert listener.stats().closed_forbidden == 1


async def test_a_unix_socket_that_was_handed_over_serves_its_clients(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(tmp_path / "s"))
        async with open_listener("echo", given, echo) as listener:
            async with await anyio.connect_unix(tmp_path / "s") as client:
                await client.send(b"x")
                with anyio.fail_after(30):
                    assert await client.receive() == b"x"
            assert listener.stats().accepted == 1


async def test_clients_wait_in_the_backlog_for_room(handler: Handler) -> None:
    """They are never refused, one takes each place that comes free, and acceptors do not overshoot together."""
    async with open_listener(
        "echo", "127.0.0.1:0", handler, max_connections=2, when_full="backlog", acceptors=3
    ) as listener:
        clients = [connect(listener) for _ in range(8)]
        for position, client in enumerate(clients):
            with client:
                assert await answer(client, b"x") == b"x"
                for _ in range(20):
                    await checkpoint()
                assert listener.stats().accepted <= position + 2
    stats = listener.stats()
    assert (stats.accepted, taken(stats)) == (8, 8)


async def test_clients_wait_in_the_backlog_for_a_token() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, max_conn_rate="20/s burst 1", when_limited="backlog"
    ) as listener:
        clients = [connect(listener) for _ in range(6)]
        for client in clients:
            with client:
                assert await answer(client, b"x") == b"x"
    assert (listener.stats().accepted, taken(listener.stats())) == (6, 6)


async def test_the_last_refusals_are_remembered_and_no_more_of_them() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 127.0.0.0/8"]) as listener:
        before = time.time()
        for number in range(300):
            with connect(listener, f"127.0.1.{number % 250 + 1}"):
                pass
        # A client that left may count as early or as forbidden, by who was first.
        await until(lambda: taken(listener.stats()) == 300)
        with connect(listener, "127.0.0.9") as last:
            assert await rest(last) == b""
        refusals = listener.refusals
    assert len(refusals) == 256
    peer = refusals[-1].peer
    assert isinstance(peer, tuple)
    assert peer[0] == "127.0.0.9"
    assert refusals[-1].stage is Refused.FORBIDDEN
    assert "127.0.0.0/8" in refusals[-1].reason
    assert before <= refusals[0].at <= refusals[-1].at <= time.time()


async def test_clients_are_refused_while_the_event_loop_lags() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, max_loop_lag=0.15) as listener:
        async with anyio.create_task_group() as tasks:

            async def hog() -> None:
                while True:
                    time.sleep(0.3)  # noqa: ASYNC251 (what is being shown)
                    await anyio.sleep(0.01)

            tasks.start_soon(hog)
            with anyio.fail_after(20):
                while not listener.stats().closed_overloaded:
                    connect(listener).close()
                    await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        served = False
        with anyio.fail_after(20):
            while not served:  # the loop may go on lagging for a while, by what else this machine does
                await until(lambda: listener.stats().loop_lag < 0.15)
                with connect(listener) as client, suppress(ConnectionError):
                    served = await answer(client, b"x") == b"x"
    assert "lags" in next(refusal.reason for refusal in listener.refusals if refusal.stage is Refused.OVERLOADED)
