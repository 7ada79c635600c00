"""Limits that change under open connections: exact at every moment, and nobody waits too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import HEADER, connect_stream, echo, open_by_source, until
from tests.core.listening.conftest import ask, is_refused

from esockd_core import open_listener
from esockd_ratelimit import TokenBucket

if TYPE_CHECKING:
    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_max_connections_can_be_read_and_set(handler: Handler) -> None:
    """esockd's t_get_set_max_connections, whose setting replaced all other options."""
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, max_connections=4, idle_timeout=60) as listener,
            await connect_stream(listener) as first,
        ):
            assert (await listener.get_options())["max_connections"] == 4
            await ask(first)
            await listener.set_options(max_connections=1)
            assert listener.options.max_connections == listener.stats().max_connections == 1
            assert listener.options.idle_timeout == 60
            async with await connect_stream(listener) as second:
                assert await is_refused(second)
            await listener.set_options(max_connections=2)
            async with await connect_stream(listener) as third:
                assert await ask(third) == await ask(first) == b"hello"


async def test_max_connections_beyond_the_open_file_limit_are_bounded_by_it() -> None:
    """esockd's t_get_set_invalid_max_connections."""
    async with open_listener("echo", "127.0.0.1:0", echo, max_connections=None) as listener:
        most = listener.options.max_connections
        assert most is not None
        await listener.set_options(max_connections=2)
        await listener.set_options(max_connections=most + 1)
        assert listener.options.max_connections == most
        await listener.set_options(max_connections=None)
        assert listener.options.max_connections == most


async def test_max_conn_rate_can_be_read_and_set() -> None:
    """esockd's t_get_set_max_conn_rate and t_update_options_limiter."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate="1/h") as listener:
            assert listener.options.max_conn_rate == "1/h"
            async with await connect_stream(listener) as first, await connect_stream(listener) as second:
                assert await ask(first) == b"hello"
                assert await is_refused(second)
            await listener.set_options(max_conn_rate="1000/s")
            await until(lambda: listener._admission.wait_time_s() == 0)
            async with await connect_stream(listener) as third:
                assert await ask(third) == b"hello"
            await listener.set_options(max_conn_rate=None)
            assert listener._admission.limiter is None


async def test_a_bucket_keeps_its_state_when_other_options_or_its_rate_change() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, max_conn_rate="1/h", max_conn_rate_per_source="1/h"
    ) as listener:
        admission = listener._admission
        common, sources = admission.limiter, admission.sources
        assert common is not None
        assert common.try_acquire()
        assert sources.spend("192.0.2.1")
        await listener.set_options(max_connections=5)
        await listener.set_options(max_conn_rate="2/h", max_conn_rate_per_source="2/h")
        assert admission.limiter is common
        assert not common.try_acquire()
        assert not sources.spend("192.0.2.1")
        await listener.set_options(max_conn_rate_per_source=None)
        assert sources.spend("192.0.2.1")


async def test_a_programs_own_limiter_is_taken_and_left_as_it_is() -> None:
    own = TokenBucket(5)
    async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate=1) as listener:
        await listener.set_options(max_conn_rate=None, limiter=own)
        assert listener._admission.limiter is own
        await listener.set_options(max_conn_rate=7, limiter=None)
        assert listener._admission.limiter is not own
        assert own.rate.per_s == 5


async def test_clients_wait_in_the_backlog_from_the_moment_they_are_to(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, max_connections=1) as listener,
            await connect_stream(listener) as first,
        ):
            await ask(first)
            await listener.set_options(when_full="backlog")
            async with await connect_stream(listener) as second:
                await second.send(b"patience")
                await listener.set_options(max_connections=2)  # it wakes who waits for room
                assert await second.receive() == b"patience"
            assert listener.stats().closed_max_limit == 0


async def test_who_waits_for_a_token_is_taken_when_the_rate_rises() -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, max_conn_rate="1/h", when_limited="backlog") as listener,
            await connect_stream(listener) as first,
            await connect_stream(listener) as second,
        ):
            await ask(first)
            await second.send(b"patience")
            await listener.set_options(max_conn_rate="1000/s")
            assert await second.receive() == b"patience"


async def test_a_limit_for_one_source_counts_who_was_open_before_it() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, await connect_stream(listener) as first:
            await ask(first)
            await listener.set_options(max_connections_per_source=1)
            async with await connect_stream(listener) as second, await connect_stream(listener, "127.0.0.2") as other:
                assert await is_refused(second)
                assert await ask(other) == b"hello"
            await first.aclose()
            await until(lambda: not listener.connections)
            assert open_by_source(listener._admission) == {}
            async with await connect_stream(listener) as third:
                assert await ask(third) == b"hello"


async def test_the_limit_for_one_source_can_be_lifted_and_set_again_with_exact_counts() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, max_connections_per_source=9) as listener:
            async with await connect_stream(listener) as first, await connect_stream(listener) as second:
                await ask(first)
                await ask(second)
                await listener.set_options(max_connections_per_source=None)
                async with await connect_stream(listener) as third:
                    await ask(third)
                    await listener.set_options(max_connections_per_source=3)
                    assert open_by_source(listener._admission) == {"127.0.0.1": 3}
            await until(lambda: not listener.connections)
            assert open_by_source(listener._admission) == {}


async def test_a_change_of_options_lets_no_source_past_its_limit() -> None:
    """Whoever waits for its header is counted for its client, and not for the proxy, whatever changes meanwhile."""
    options: dict[str, Any] = {"proxy_protocol": True, "max_connections_per_source": 1}
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, **options) as listener,
            await connect_stream(listener) as first,
            await connect_stream(listener) as second,
        ):
            await until(lambda: listener.stats().entering == 2)
            await listener.set_options(max_connections=500)
            assert await ask(first, HEADER + b"hello") == b"hello"
            await second.send(HEADER + b"hello")
            assert await is_refused(second)
            assert open_by_source(listener._admission) == {"192.0.2.7": 1}
        assert open_by_source(listener._admission) == {}
