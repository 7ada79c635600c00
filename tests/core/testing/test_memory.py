"""What a connection in memory has beside a listener's: sizes and names of the test's choice, and no need of a loop."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.abc import SocketAttribute
from tests.core.conftest import echo

from esockd_core import CallbackHandler, InvalidOption, ListenerOptions, StreamConnection, TlsInfo, TlsOptions
from esockd_core.testing import FakeClock, exchange, memory_connection
from esockd_proxyproto import Endpoint, ProxyHeader
from esockd_ratelimit import TokenBucket

pytestmark = pytest.mark.anyio


KIB = 1024


async def upper(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data.upper())


def test_it_costs_nothing_unless_it_is_imported_and_needs_no_test_framework() -> None:
    program = """
import sys, esockd_core
assert "esockd_core.testing" not in sys.modules
import esockd_core.testing
assert sys.modules.keys().isdisjoint({"pytest", "trio", "unittest", "uvloop"})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


# Without a block


async def test_a_handler_is_served_in_a_straight_line_when_the_client_did_everything_before() -> None:
    connection = memory_connection()
    await connection.peer.send(b"hello")
    await connection.peer.send_eof()
    assert await connection.serve(upper) == "normal" == connection.reason
    assert await connection.peer.receive_all() == b"HELLO"


async def test_a_function_that_takes_a_connection_can_be_called_directly() -> None:
    connection = memory_connection()
    await connection.peer.send(b"hello")
    assert await connection.receive(2) == b"he"
    await connection.send(b"bye")
    await connection.aclose()
    assert str(connection.state) == "closing"
    assert await connection.peer.receive_all() == b"bye"
    assert connection.reason is None
    await connection.peer.aclose()
    assert str(connection.state) == "closed"
    assert str(connection.reason) == "normal"


def test_a_connection_can_be_made_before_an_event_loop_runs() -> None:
    connection = memory_connection()

    async def main() -> str:
        await connection.peer.send_eof()
        return await connection.serve(upper)

    assert trio.run(main) == "normal"


async def test_a_connection_is_served_once() -> None:
    connection = memory_connection()
    await connection.peer.aclose()
    await connection.serve(upper)
    with pytest.raises(RuntimeError, match="served already"):
        await connection.serve(upper)


async def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(InvalidOption):
        await memory_connection().serve(CallbackHandler)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption):
        async with memory_connection().served_by(3):  # type: ignore[arg-type]
            await anyio.sleep_forever()


@pytest.mark.parametrize("wrong", [{"chunk_bytes": 0}, {"window_bytes": -1}], ids=str)
def test_sizes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        memory_connection(**wrong)


# Sizes


async def test_a_handler_can_be_given_every_byte_by_itself() -> None:
    received: list[bytes] = []

    async def handle(connection: StreamConnection) -> None:
        received.extend([data async for data in connection])

    async with memory_connection(chunk_bytes=1).served_by(handle) as peer:
        await exchange(peer, b"abc")
    assert received == [b"a", b"b", b"c"]


@pytest.mark.parametrize(("window_bytes", "expected"), [(0, 64 * KIB), (10 * KIB, 74 * KIB)])
async def test_sending_waits_above_window_and_buffer_to_the_exact_byte(window_bytes: int, expected: int) -> None:
    sent = 0

    async def pour(connection: StreamConnection) -> None:
        nonlocal sent
        while True:
            await connection.send(bytes(64))
            sent += 64

    async with memory_connection(window_bytes=window_bytes).served_by(pour) as peer:
        await anyio.wait_all_tasks_blocked()
        assert sent == expected
        assert len(await peer.receive(128)) == 128
        await anyio.wait_all_tasks_blocked()
        assert sent == expected + 128


async def test_send_nowait_raises_above_the_limit_to_the_exact_byte() -> None:
    connection = memory_connection(window_bytes=5, options=ListenerOptions(write_buffer_bytes=10, write_limit_bytes=20))
    connection.send_nowait(bytes(16))
    connection.send_nowait(bytes(9))
    with pytest.raises(anyio.WouldBlock):
        connection.send_nowait(b"x")
    assert await connection.peer.receive(1) == b"\0"
    connection.send_nowait(b"x")


async def test_a_client_waits_for_a_handler_that_does_not_read() -> None:
    connection = memory_connection(options=ListenerOptions(read_buffer_bytes=10))
    await connection.peer.send(b"0123456789abc")
    with anyio.move_on_after(0.05) as scope:
        await connection.peer.send(b"d")
    assert scope.cancelled_caught
    assert await connection.receive(4) == b"0123"
    await connection.peer.send(b"d")
    assert await connection.receive() == b"456789abcd"


# What a handler is told


async def test_a_client_of_the_tests_choice() -> None:
    connection = memory_connection(peername=("192.0.2.7", 41000), sockname="/run/echo")
    assert connection.peername == connection.socket_peername == ("192.0.2.7", 41000)
    assert connection.extra(SocketAttribute.remote_port) == 41000
    assert connection.extra(SocketAttribute.local_address) == "/run/echo"
    with pytest.raises(anyio.TypedAttributeLookupError):
        connection.extra(SocketAttribute.local_port)
    with pytest.raises(anyio.TypedAttributeLookupError):
        connection.extra(SocketAttribute.raw_socket)
    with pytest.raises(anyio.TypedAttributeLookupError):
        connection._raw_socket()
    unix = memory_connection(peername="")
    assert unix.peername == unix.socket_peername == ""
    with pytest.raises(anyio.TypedAttributeLookupError):
        unix.extra(SocketAttribute.remote_port)


async def test_a_client_behind_a_proxy() -> None:
    header = ProxyHeader(source=Endpoint("192.0.2.7", 41000), destination=Endpoint("192.0.2.1", 443))
    connection = memory_connection(proxy=header)
    assert connection.proxy is header
    assert connection.peername == ("192.0.2.7", 41000)
    assert connection.socket_peername == ("127.0.0.1", 50000)
    assert connection.tls is None
    health_check = memory_connection(proxy=ProxyHeader(), socket_peername=("10.0.0.1", 1))
    assert health_check.peername == ("10.0.0.1", 1)


async def test_tls_is_what_the_test_says_and_cannot_be_started() -> None:
    info = TlsInfo(version="TLSv1.3", cipher=None, server_name="mqtt.example", alpn=None, peer_certificate=None)
    connection = memory_connection(tls=info)
    assert connection.tls is info
    with pytest.raises(RuntimeError, match="loopback"):
        await connection.start_tls(TlsOptions.__new__(TlsOptions))


async def test_a_coroutine_handler_does_not_pause_reading() -> None:
    connection = memory_connection()
    for action in (connection.pause_reading, connection.resume_reading):
        with pytest.raises(RuntimeError, match="coroutine handler"):
            action()


# Clocks


async def test_a_fake_clock_drives_a_limiter() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, clock=clock)
    assert bucket.try_acquire()
    assert not bucket.try_acquire()
    clock.advance(1)
    assert bucket.try_acquire()


def test_an_hour_of_idling_takes_no_time_with_trios_mock_clock() -> None:
    async def main() -> float:
        connection = memory_connection(options=ListenerOptions(idle_timeout=3600))
        async with connection.served_by(echo) as peer:
            with pytest.raises(anyio.BrokenResourceError):
                await peer.receive_all()
        assert connection.reason == "idle_timeout"
        return trio.current_time()

    elapsed_s = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 3600 <= elapsed_s <= 3600 * 1.25 + 5
