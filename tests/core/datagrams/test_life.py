"""Who gets in, who has to leave, and what goes on while a datagram listener is suspended, drained or reopened."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from tests.core.conftest import ASYNCIO_ONLY, reasons, settle, until
from tests.core.datagrams.udp import Client, Echo, Note, assert_all_accounted_for, drops, echo
from tests.ports import steady_address, steady_port

from esockd_core import (
    AddressInUse,
    DatagramConnection,
    Handler,
    Refused,
    open_listener,
)

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"
STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


async def test_max_connections_is_exact_and_its_refusals_are_counted() -> None:
    async with open_listener("udp", ADDRESS, echo, max_connections=2) as listener:
        with Client(listener) as one, Client(listener) as other, Client(listener) as third:
            assert await one.ask(b"x") == b"x"
            assert await other.ask(b"x") == b"x"
            third.send(b"x", b"x")
            await until(lambda: drops(listener) == {"max_limit": 2})
            assert await one.ask(b"still") == b"still"
            stats = listener.stats()
            assert (stats.accepted, stats.closed_max_limit, stats.current_connections) == (2, 2, 2)
            assert [each.peer for each in listener.refusals] == [third.name] * 2
            await listener.kill_connection(listener.connections[0].id)
            await reasons(listener)
            assert await third.ask(b"in") == b"in"
            assert_all_accounted_for(listener.stats())


async def test_access_rules_judge_a_peer_at_its_first_datagram() -> None:
    async with open_listener("udp", ADDRESS, echo, access_rules=["deny 127.0.0.2", "allow all"]) as listener:
        with Client(listener) as good, Client(listener, source="127.0.0.2") as bad:
            bad.send(b"x", b"y")
            assert await good.ask(b"x") == b"x"
            assert drops(listener) == {"forbidden": 2}
            assert listener.stats().closed_forbidden == 2
            assert listener.refusals[0].stage is Refused.FORBIDDEN
            await listener.deny("127.0.0.1")
            assert await good.ask(b"as on TCP, open ones stay") == b"as on TCP, open ones stay"
            assert await listener.kill_connections("127.0.0.1") == 1
            good.send(b"x")
            await until(lambda: drops(listener)["forbidden"] == 3)
            assert bad.received() == []
        assert_all_accounted_for(listener.stats(), sent=5)


async def test_the_rates_of_new_peers_are_limited() -> None:
    async with open_listener("udp", ADDRESS, echo, max_conn_rate="1/h") as listener:
        with Client(listener) as one, Client(listener) as other:
            assert await one.ask(b"x") == b"x"
            other.send(b"x")
            assert await one.ask(b"x") == b"x"
            assert drops(listener) == {"rate_limited": 1}


async def test_a_source_has_its_own_limits() -> None:
    async with open_listener("udp", ADDRESS, echo, max_connections_per_source=1) as listener:
        with Client(listener) as one, Client(listener) as same, Client(listener, source="127.0.0.2") as other:
            assert await one.ask(b"x") == b"x"
            same.send(b"x")
            assert await other.ask(b"x") == b"x"
            assert drops(listener) == {"max_limit": 1}
            top = await listener.get_top_sources()
            assert (top[0].source, top[0].attempts, top[0].open_connections) == ("127.0.0.1", 2, 1)


async def test_overload_turns_new_peers_away() -> None:
    async with open_listener("udp", ADDRESS, echo, load_hook=lambda _: False) as listener:
        with Client(listener) as client:
            client.send(b"x")
            await until(lambda: drops(listener) == {"overloaded": 1})
            assert (await listener.explain("127.0.0.1")).is_admitted is None


@pytest.mark.parametrize("given", [{"udp": {"idle_timeout": 0.2}}, {"idle_timeout": 0.2}], ids=["udp", "own"])
async def test_the_iteration_ends_when_nothing_came_for_the_idle_timeout(given: dict[str, Any]) -> None:
    ended: list[str] = []

    async def handle(connection: DatagramConnection) -> None:
        async for datagram in connection:
            await connection.send(datagram)
        with pytest.raises(anyio.EndOfStream):
            await connection.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await connection.send(b"too late")
        ended.append(connection.state)

    async with open_listener("udp", ADDRESS, handle, **given) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
            assert await reasons(listener) == {"idle_timeout": 1}
            assert await client.ask(b"again") == b"again"
    assert ended == ["closed"] * len(ended)


async def test_only_what_comes_from_the_peer_counts_for_its_idle_time() -> None:
    async def talks(connection: DatagramConnection) -> None:
        while True:
            await connection.send(b"are you there?")
            await anyio.sleep(0.02)

    async with open_listener("udp", ADDRESS, talks, udp={"idle_timeout": 0.2}) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert await reasons(listener) == {"idle_timeout": 1}


async def test_an_empty_datagram_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_listener("udp", ADDRESS, Note(), udp={"idle_timeout": 0.4}, receive_timeout=0.4) as listener:
        with Client(listener) as client:
            for _ in range(12):
                client.send(b"")
                await anyio.sleep(0.08)
            assert listener.stats().shutdown_counts == {}
            assert set(await reasons(listener)) <= {"idle_timeout", "receive_timeout"}


async def test_a_callback_handler_is_told_of_a_silent_peer_without_an_error() -> None:
    note = Note()
    async with open_listener("udp", ADDRESS, note, udp={"idle_timeout": 0.1}) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert await reasons(listener) == {"idle_timeout": 1}
    assert note.told == ["made", b"x", ("lost", None)]


async def test_a_handler_may_set_another_receive_timeout() -> None:
    async def handle(connection: DatagramConnection) -> None:
        assert connection.receive_timeout is None
        connection.receive_timeout = 0.1
        assert connection.receive_timeout == 0.1
        await connection.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await connection.receive()

    async with open_listener("udp", ADDRESS, handle) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert await reasons(listener) == {"receive_timeout": 1}


@STYLES
async def test_a_suspended_listener_serves_its_peers_and_takes_no_new_ones(handler: Handler) -> None:
    async with open_listener("udp", ADDRESS, handler) as listener:
        with Client(listener) as known, Client(listener) as fresh:
            assert await known.ask(b"x") == b"x"
            await listener.suspend()
            fresh.send(b"x")
            assert await known.ask(b"y") == b"y"
            assert drops(listener) == {"suspended": 1}
            decided_by = (await listener.explain("127.0.0.1")).decided_by
            assert decided_by is not None
            assert "dropped" in decided_by.reason
            await listener.resume()
            assert await fresh.ask(b"z") == b"z"
        assert_all_accounted_for(listener.stats(), sent=4)


async def test_a_draining_listener_serves_its_peers_until_their_handlers_end() -> None:
    async def four(connection: DatagramConnection) -> None:
        for _ in range(4):
            await connection.send(await connection.receive())

    async with open_listener("udp", ADDRESS, four) as listener:
        with Client(listener) as known, Client(listener) as fresh:
            assert await known.ask(b"1") == b"1"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.close)
                await until(lambda: listener.state == "draining")
                fresh.send(b"x")
                for each in (b"2", b"3", b"4"):
                    assert await known.ask(each) == each
            assert drops(listener) == {"suspended": 1}
            assert listener.stats().shutdown_counts == {"normal": 1}


async def test_an_iteration_ends_when_the_listener_drains_once_everything_is_received() -> None:
    received: list[bytes] = []
    go_on = anyio.Event()

    async def handle(connection: DatagramConnection) -> None:
        async for datagram in connection:
            received.append(datagram)
            await go_on.wait()
        received.append(b"goodbye")
        await connection.send(b"goodbye")

    async with open_listener("udp", ADDRESS, handle, shutdown_timeout=None) as listener:
        with Client(listener) as client:
            client.send(b"1", b"2")
            await until(lambda: received)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.close)
                await until(lambda: listener.state == "draining")
                await settle()
                go_on.set()
            assert await client.receive() == b"goodbye"
    assert received == [b"1", b"2", b"goodbye"]


async def test_a_scope_ends_when_the_listener_drains() -> None:
    async def handle(connection: DatagramConnection) -> None:
        with connection.until_draining() as scope:
            while True:
                await connection.send(await connection.receive())
        assert scope.cancelled_caught
        await connection.wait_draining()
        await connection.send(b"goodbye")

    async with open_listener("udp", ADDRESS, handle) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
            await listener.close()
            assert await client.receive() == b"goodbye"


async def test_a_handler_that_does_not_end_is_cancelled() -> None:
    async with open_listener("udp", ADDRESS, lambda _: anyio.sleep_forever(), shutdown_timeout=0.1) as listener:
        with Client(listener) as client:
            client.send(b"x")
            await until(lambda: listener.connections)
            await listener.close()
        assert listener.stats().shutdown_counts == {"shutdown": 1}
        assert_all_accounted_for(listener.stats(), sent=1)


async def test_what_a_stuck_handler_received_is_accounted_for() -> None:
    go_on = anyio.Event()

    async def stuck(connection: DatagramConnection) -> None:
        await connection.receive()
        with anyio.CancelScope(shield=True):
            await go_on.wait()

    async with anyio.create_task_group() as tasks:
        async with open_listener("udp", ADDRESS, stuck, shutdown_timeout=0) as listener:
            with Client(listener) as client:
                client.send(b"1", b"2", b"3")
                await until(lambda: listener.stats().datagrams_waiting == 2)
                tasks.start_soon(listener.close)
                await until(lambda: listener.stats().shutdown_counts)
                go_on.set()
        assert sum(listener.stats().shutdown_counts.values()) == 1
        assert drops(listener) == {"unread": 2}
        assert_all_accounted_for(listener.stats(), sent=3)


async def test_a_killed_connection_is_told_so() -> None:
    errors: list[Exception] = []

    async def handle(connection: DatagramConnection) -> None:
        try:
            await connection.receive()
            await connection.receive()
        except anyio.BrokenResourceError as error:
            errors.append(error)
            raise

    note = Note()
    async with open_listener("udp", ADDRESS, handle) as listener, open_listener("two", ADDRESS, note) as other:
        with Client(listener) as client, Client(other) as second:
            client.send(b"x")
            second.send(b"x")
            await until(lambda: listener.connections and other.connections)
            for each in (listener, other):
                assert await each.kill_connection(each.connections[0].id)
                assert await reasons(each) == {"killed": 1}
    assert note.told[:2] == ["made", b"x"]
    assert isinstance(note.told[2][1], ConnectionAbortedError)


@STYLES
@pytest.mark.parametrize("host", ["127.0.0.1:", "*:", ""])
async def test_connections_survive_a_reopening(handler: Handler, host: str) -> None:
    address = f"udp://{host}{steady_port()}"
    async with open_listener("udp", address, handler) as listener:
        with Client(listener) as client:
            assert await client.ask(b"1") == b"1"
            port, (connection,) = listener.port, listener.connections
            await listener.reopen()
            assert listener.port == port
            assert await client.ask(b"2") == b"2"
            await listener.reopen(address)
            assert await client.ask(b"3") == b"3"
            assert listener.connections == (connection,)
            assert listener.stats().accepted == 1
        assert_all_accounted_for(listener.stats(), sent=3)


async def test_datagrams_that_waited_are_taken_before_the_socket_is_closed() -> None:
    async with open_listener("udp", f"udp://{steady_address()}", echo) as listener:
        with Client(listener) as client:
            client.send(b"1", b"2", b"3")
            await listener.reopen()
            assert [await client.receive() for _ in range(3)] == [b"1", b"2", b"3"]


async def test_peers_move_to_the_new_address_or_end_when_there_is_none_for_them() -> None:
    async with open_listener("udp", "udp://0", echo) as listener:
        with Client(listener) as four, Client(listener, "::1") as six:
            assert await four.ask(b"x") == b"x"
            assert await six.ask(b"x") == b"x"
            await listener.reopen("udp://127.0.0.1:0")
            assert await reasons(listener) == {"reset": 1}
            four.target = ("127.0.0.1", listener.port or 0)
            assert await four.ask(b"y") == b"y"
            assert listener.stats().accepted == 2


async def test_a_reopening_that_fails_leaves_the_peers_where_they_are() -> None:
    async with (
        open_listener("udp", f"udp://{steady_address()}", echo) as listener,
        open_listener("other", f"udp://{steady_address()}", echo) as other,
    ):
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
            with pytest.raises(AddressInUse):
                await listener.reopen(f"udp://127.0.0.1:{other.port}")
            assert listener.state == "running"
            assert await client.ask(b"y") == b"y"


async def test_ten_thousand_peers_are_served_and_forgotten() -> None:
    async with open_listener(
        "udp", ADDRESS, Echo(), max_connections=10_000, udp={"idle_timeout": 600, "receive_buffer_bytes": 1 << 20}
    ) as listener:
        with Client(listener) as client:
            port = listener._site.ports[0]
            for number in range(10_000):  # as if each had sent one: a process may not have as many sockets
                address = (f"127.{1 + number // 60_000}.{number // 250 % 250}.{number % 250 + 1}", 9)
                port._take_other(b"x", address, address)  # type: ignore[attr-defined]
                listener._site.counters.datagrams_in += 1
            client.send(b"one too many")
            await until(lambda: drops(listener) == {"max_limit": 1})
            assert len(listener.connections) == 10_000
            assert await listener.kill_connections("all") == 10_000
            assert await reasons(listener, 10_000) == {"killed": 10_000}
            assert await client.ask(b"room") == b"room"
            assert len(port.peers) == 1  # type: ignore[attr-defined]
        assert_all_accounted_for(listener.stats(), sent=10_002)


@ASYNCIO_ONLY
async def test_a_handler_whose_task_somebody_cancels_is_killed_and_made_no_mistake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancel_its_own_task(connection: DatagramConnection) -> None:
        await connection.receive()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(10)

    async with open_listener("udp", ADDRESS, cancel_its_own_task) as listener:
        with Client(listener).send(b"go"):
            assert await reasons(listener) == {"killed": 1}
    assert caplog.records == []
