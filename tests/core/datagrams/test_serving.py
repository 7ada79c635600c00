"""Serving datagrams: one connection for each peer, boundaries kept, and nothing dropped without being counted."""

from __future__ import annotations

import contextvars
import errno
import logging
import socket
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute
from tests.core.conftest import EventCount, give_up, reasons, settle, until
from tests.core.datagrams.udp import Client, Echo, Note, assert_all_accounted_for, drops, echo, several
from tests.ports import steady_address

from esockd_core import DatagramConnection, Handler, Listener, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"
STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


@STYLES
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_handler_that_iterates_and_sends_serves_datagrams(handler: Handler, host: str) -> None:
    async with open_listener("udp", f"udp://{host}:0", handler) as listener:
        with Client(listener, host.strip("[]")) as client:
            for size in (0, 1, 1_472, 9_000, 65_507 if host == "127.0.0.1" else 65_527):
                assert await client.ask(bytes(size)) == bytes(size)
        assert_all_accounted_for(listener.stats(), sent=5)


@STYLES
async def test_each_peer_has_one_connection_from_its_first_datagram_on(handler: Handler) -> None:
    with EventCount() as events:
        async with open_listener("udp", ADDRESS, handler, on_event=events.note) as listener:
            with Client(listener) as one, Client(listener) as other:
                for number in range(3):
                    assert await one.ask(b"one %d" % number) == b"one %d" % number
                assert await other.ask(b"other") == b"other"
                first, second = listener.connections
                assert isinstance(first, DatagramConnection)
                assert (first.peername, second.peername) == (one.name, other.name)
                assert first.sockname == ("127.0.0.1", listener.port)
                assert (first.datagrams_in, first.datagrams_out, first.bytes_in) == (3, 3, 15)
                assert (first.state, first.tls, first.proxy, first.draining) == ("open", None, None, False)
                assert first.extra(SocketAttribute.remote_address) == one.name
                assert first.extra(SocketAttribute.local_port) == listener.port
                assert "DatagramConnection" in repr(first)
                assert "3 datagrams in" in repr(first)
            assert listener.stats().accepted == 2


async def test_datagrams_that_came_together_are_received_one_by_one_in_their_order() -> None:
    received: list[bytes] = []

    async def handle(connection: DatagramConnection) -> None:
        while len(received) < 4:
            received.append(await connection.receive())
        await connection.send(b"done")

    async with open_listener("udp", ADDRESS, handle) as listener:
        with Client(listener) as client:
            assert await client.send(b"a", b"", b"b", b"").receive() == b"done"
    assert received == [b"a", b"", b"b", b""]


async def test_a_handler_that_returns_ends_its_connection_and_the_next_datagram_begins_another() -> None:
    async def answer_once(connection: DatagramConnection) -> None:
        await connection.send(b"%d: " % connection.id + await connection.receive())

    async with open_listener("udp", ADDRESS, answer_once, max_connections=1) as listener:
        with Client(listener) as client:
            first = int((await client.ask(b"x")).partition(b":")[0])
            await reasons(listener)
            second = int((await client.ask(b"x")).partition(b":")[0])
            assert second > first
            assert await reasons(listener, 2) == {"normal": 2}


async def test_callbacks_are_told_of_each_peer_from_its_first_datagram_to_its_end() -> None:
    note = Note()
    async with open_listener("udp", ADDRESS, note) as listener:
        with Client(listener) as client:
            client.send(b"", b"one")
            await until(lambda: len(note.told) == 3)
    assert note.told == ["made", b"", b"one", "drain", ("lost", None)]


async def test_a_callback_may_close_its_connection_and_is_told_of_the_end_afterwards() -> None:
    class Once(Note):
        def data_received(self, connection: DatagramConnection, data: bytes) -> None:
            connection.send_nowait(data)
            connection.close_nowait("served")
            self.told.append("closed")

    once = Once()
    async with open_listener("udp", ADDRESS, once) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
            assert await reasons(listener) == {"served": 1}
    assert once.told == ["made", "closed", ("lost", None)]


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_an_error_of_a_handler_ends_the_connection_of_its_peer_only(
    style: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Echo):
        def data_received(self, connection: DatagramConnection, data: bytes) -> None:
            if data == b"fail":
                raise RuntimeError("as asked")
            super().data_received(connection, data)

    async def fails(connection: DatagramConnection) -> None:
        async for datagram in connection:
            if datagram == b"fail":
                raise RuntimeError("as asked")
            await connection.send(datagram)

    handler: Handler = fails if style == "coroutine" else Fails()
    async with open_listener("udp", ADDRESS, handler) as listener:
        with Client(listener) as one, Client(listener) as other:
            assert await other.ask(b"x") == b"x"
            one.send(b"fail")
            assert await reasons(listener) == {"handler_error": 1}
            assert await other.ask(b"x") == b"x"
            assert await one.ask(b"again") == b"again"
    assert "as asked" in caplog.text


async def test_datagrams_beyond_the_queue_of_a_peer_are_dropped_and_counted() -> None:
    go_on = anyio.Event()
    received: list[bytes] = []

    async def late(connection: DatagramConnection) -> None:
        await go_on.wait()
        async for datagram in connection:
            received.append(datagram)  # noqa: PERF401
        await connection.wait_draining()

    async with open_listener("udp", ADDRESS, late, udp={"queue_datagrams": 5}) as listener:
        with Client(listener) as client:
            client.send(*several(b"x", 8))
            await until(lambda: drops(listener) == {"queue_full": 3})
            assert listener.stats().datagrams_waiting == 5
            assert_all_accounted_for(listener.stats(), sent=8)
            go_on.set()
            await until(lambda: len(received) == 5)
    assert received == list(several(b"x", 5))
    assert_all_accounted_for(listener.stats(), sent=8)


async def test_the_queue_of_a_peer_is_bounded_in_bytes_too() -> None:
    async with open_listener("udp", ADDRESS, lambda _: anyio.sleep_forever(), read_buffer_bytes=2_000) as listener:
        with Client(listener) as client:
            client.send(*[bytes(900)] * 5)
            await until(lambda: drops(listener) == {"queue_full": 2})
            await listener.kill()
    assert drops(listener) == {"queue_full": 2, "unread": 3}
    assert_all_accounted_for(listener.stats(), sent=5)


async def test_a_datagram_that_is_too_long_is_dropped_and_counted() -> None:
    async with open_listener("udp", ADDRESS, echo, udp={"max_datagram_bytes": 10}) as listener:
        with Client(listener) as client:
            client.send(bytes(11))  # of a new peer, and of a known one
            assert await client.ask(bytes(10)) == bytes(10)
            client.send(bytes(11))
            assert await client.ask(b"") == b""
        assert drops(listener) == {"too_long": 2}
        assert_all_accounted_for(listener.stats(), sent=4)


async def test_what_the_kernel_drops_is_counted_exactly() -> None:
    async with open_listener("udp", f"udp://{steady_address()}", echo, udp={"receive_buffer_bytes": 4_096}) as listener:
        with Client(listener) as client:
            client.send(*several(b"x", 500))  # while the loop does not run, the buffer fills up
            await until(lambda: len(client.received()) == 0 and listener.stats().datagrams_in == 500)
            dropped = drops(listener)
            assert dropped["kernel_overflow"] > 300
            assert_all_accounted_for(listener.stats(), sent=500)
            await listener.reopen()
            assert drops(listener)["kernel_overflow"] == dropped["kernel_overflow"]


async def test_a_receive_that_is_cancelled_loses_no_datagram() -> None:
    async def patient(connection: DatagramConnection) -> None:
        await connection.receive()
        await give_up(connection.receive)
        await connection.send(b"go on")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.receive()
        await connection.send(await connection.receive())

    async with open_listener("udp", ADDRESS, patient) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"go on"
            assert await client.ask(b"kept") == b"kept"


async def test_only_one_task_may_receive_at_a_time() -> None:
    async def doubly(connection: DatagramConnection) -> None:
        await connection.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.receive)
            await settle()
            with pytest.raises(anyio.BusyResourceError):
                await connection.receive()
            await connection.send(b"busy")

    async with open_listener("udp", ADDRESS, doubly) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"busy"
            client.send(b"end")
            assert await reasons(listener) == {"normal": 1}


async def test_a_closed_connection_neither_sends_nor_receives() -> None:
    errors: list[str] = []

    async def closes(connection: DatagramConnection) -> None:
        await connection.receive()
        await connection.aclose()
        for use in (connection.receive, lambda: connection.send(b"x")):
            try:
                await use()
            except anyio.ClosedResourceError:
                errors.append("closed")
        with pytest.raises(NotImplementedError):
            await connection.send_eof()

    async with open_listener("udp", ADDRESS, closes) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert await reasons(listener) == {"normal": 1}
    assert errors == ["closed", "closed"]


async def test_handlers_begin_with_the_context_variables_of_the_code_that_opened_the_listener() -> None:
    colour = contextvars.ContextVar("colour", default="none")
    seen: list[str] = []

    class Sees(Echo):
        def data_received(self, connection: DatagramConnection, data: bytes) -> None:
            seen.append(colour.get())
            colour.set("changed")
            super().data_received(connection, data)

    colour.set("blue")
    async with open_listener("udp", ADDRESS, Sees()) as listener:
        colour.set("red")
        with Client(listener) as client:
            await client.ask(b"x")
            await client.ask(b"x")
    assert seen == ["blue", "blue"]


async def test_an_icmp_error_does_not_end_the_listener() -> None:
    async with open_listener("udp", ADDRESS, echo) as listener:
        with Client(listener) as client:
            client.send(b"x")
        await until(lambda: listener.stats().datagrams_out == 1)  # to a port that is closed by now
        with Client(listener) as client:
            assert await client.ask(b"y") == b"y"
        assert listener.state == "running"


async def test_both_names_of_an_ipv4_peer_of_a_socket_of_both_families_are_of_ipv4() -> None:
    async def tell(connection: DatagramConnection) -> None:
        async for _ in connection:
            await connection.send(f"{connection.peername} {connection.sockname}".encode())

    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(("::", 0))
        port = opened.getsockname()[1]
        async with open_listener("udp", f"udp://fd:{opened.fileno()}", tell) as listener:
            with Client(listener) as client:
                assert await client.ask(b"x") == f"{client.name} {('127.0.0.1', port)}".encode()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps errors for a UDP socket")
async def test_an_icmp_error_does_not_end_the_listener_on_a_socket_whose_opener_wanted_to_be_told_of_them() -> None:
    ip_recverr = 11
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.setsockopt(socket.IPPROTO_IP, ip_recverr, 1)
        async with open_listener("udp", f"udp://fd:{opened.fileno()}", echo) as listener:
            with Client(listener) as client:
                client.send(b"x")
            await until(lambda: listener.stats().datagrams_out == 1)
            with Client(listener) as client:
                for _ in range(3):
                    assert await client.ask(b"y") == b"y"
            assert listener.state == "running"


async def test_errors_of_reading_that_pass_do_not_end_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with open_listener("udp", ADDRESS, echo) as listener:
        port = listener._site.ports[0]
        read = port._recvfrom  # type: ignore[attr-defined]
        errors = iter([errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENOBUFS])

        def fails(size: int) -> tuple[bytes, object]:
            if (number := next(errors, 0)) != 0:
                raise OSError(number, "as asked")
            found: tuple[bytes, object] = read(size)
            return found

        port._recvfrom = fails  # type: ignore[attr-defined]
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
        assert "reading datagrams failed" in caplog.text


async def test_a_socket_that_was_shut_down_ends_the_listener_with_the_error() -> None:
    with pytest.raises(OSError, match="shut down"):  # noqa: PT012
        async with open_listener("udp", ADDRESS, echo) as listener:
            with pytest.raises(OSError, match=r"not connected"):
                listener._intake._sockets.sockets[0].shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            await listener.wait_closed()


async def test_a_handler_that_cannot_be_called_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(connection: DatagramConnection) -> None:
        raise RuntimeError("as asked")

    handler: Callable[..., object] = lambda connection: wrong(connection)  # noqa: E731, PLW0108
    async with open_listener("udp", ADDRESS, handler) as listener:  # type: ignore[arg-type]
        with Client(listener) as client:
            client.send(b"x")
            assert await reasons(listener) == {"handler_error": 1}
        assert_all_accounted_for(listener.stats(), sent=1)


async def test_a_hook_may_close_a_peer_before_its_handler_starts() -> None:
    started: list[object] = []

    async def handle(connection: DatagramConnection) -> None:
        started.append(connection)

    async with open_listener(
        "udp", ADDRESS, handle, on_event=lambda event: event.connection.close_nowait("unwanted")
    ) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert await reasons(listener) == {"unwanted": 1}
        assert drops(listener) == {"unread": 1}
    assert started == []


def test_a_listener_shows_that_it_is_one_of_datagrams() -> None:
    assert repr(Listener("udp", "udp://127.0.0.1:5000", echo)) == "<Listener 'udp' on udp://127.0.0.1:5000: new>"
