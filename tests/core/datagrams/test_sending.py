"""Sending datagrams: what is too long, what the kernel refuses, and what waits for room."""

from __future__ import annotations

import errno

import anyio
import pytest
from tests.core.conftest import reasons, until
from tests.core.datagrams.udp import Client, Echo, assert_all_accounted_for, echo
from tests.ports import steady_address

from esockd_core import DatagramConnection, DatagramTooLong, Handler, open_listener

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"
STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


async def test_a_peer_may_send_too_long_a_datagram_without_ending_the_connection() -> None:
    async def tries(connection: DatagramConnection) -> None:
        await connection.receive()
        with pytest.raises(DatagramTooLong, match="70000 bytes"):
            await connection.send(bytes(70_000))
        with pytest.raises(DatagramTooLong):
            connection.send_nowait(bytes(70_000))
        await connection.send(b"still here")

    async with open_listener("udp", ADDRESS, tries) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"still here"
            assert await reasons(listener) == {"normal": 1}


async def test_what_the_kernel_refuses_to_send_is_counted_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = iter([errno.EPERM, errno.ENOBUFS, errno.ECONNREFUSED])

    async def answers(connection: DatagramConnection) -> None:
        port = connection.port  # type: ignore[attr-defined] # not public
        send = port.sendto

        def refuse(datagram: bytes, address: object) -> int:
            if (number := next(refused, 0)) != 0:
                raise OSError(number, "as asked")
            return int(send(datagram, address))

        port.sendto = refuse
        async for datagram in connection:
            await connection.send(datagram)

    async with open_listener("udp", ADDRESS, answers) as listener:
        with Client(listener) as client:
            assert await client.send(b"1", b"2", b"3", b"4").receive() == b"4"
        assert listener.stats().datagrams_unsent == {"EPERM": 1, "ENOBUFS": 1, "ECONNREFUSED": 1}


async def test_a_send_waits_while_the_send_buffer_is_full() -> None:
    tries: list[bytes] = []

    async def answers(connection: DatagramConnection) -> None:
        port = connection.port  # type: ignore[attr-defined] # not public
        send = port.sendto

        def full_at_first(datagram: bytes, address: object) -> int:
            tries.append(datagram)
            if len(tries) < 4:
                raise BlockingIOError(errno.EAGAIN, "full")
            return int(send(datagram, address))

        port.sendto = full_at_first
        await connection.receive()
        with pytest.raises(anyio.WouldBlock):
            connection.send_nowait(b"now")
        await connection.send(b"later")

    async with open_listener("udp", ADDRESS, answers) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"later"
    assert tries == [b"now", b"later", b"later", b"later"]


async def test_a_send_that_waits_for_room_goes_on_at_the_socket_that_replaces_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited_for: list[object] = []

    async def first_is_never_writable(sock: object) -> None:
        waited_for.append(sock)
        if sock is waited_for[0]:
            await anyio.sleep_forever()  # as for a socket that was closed meanwhile

    async def answers(connection: DatagramConnection) -> None:
        def is_full(datagram: bytes, address: object) -> int:
            raise BlockingIOError(errno.EAGAIN, "full")

        connection.port.sendto = is_full  # type: ignore[attr-defined] # not public
        async with anyio.create_task_group() as task_group:
            for number in range(3):
                task_group.start_soon(connection.send, b"%d" % number)

    async with open_listener("udp", f"udp://{steady_address()}", answers) as listener:
        with Client(listener) as client, monkeypatch.context() as patched:
            patched.setattr(anyio, "wait_writable", first_is_never_writable)
            client.send(b"x")
            await until(lambda: waited_for)
            await listener.reopen()
            assert sorted([await client.receive() for _ in range(3)]) == [b"0", b"1", b"2"]


@pytest.mark.linux
@STYLES
async def test_replies_leave_from_the_address_that_was_asked(handler: Handler) -> None:
    async with open_listener("udp", "udp://*:0", handler) as listener:
        port = listener.port or 0
        with Client(listener, "127.0.0.1") as one, Client(listener, "127.0.0.2", "127.0.0.1") as other:
            other.socket.close()
            other.socket = one.socket.dup()  # the same peer asks two addresses
            one.send(b"one")
            assert await one.receive_from() == (b"one", ("127.0.0.1", port))
            other.send(b"other")
            assert await one.receive_from() == (b"other", ("127.0.0.2", port))
            assert [each.sockname for each in listener.connections] == [("127.0.0.1", port), ("127.0.0.2", port)]
            assert [each.peername for each in listener.connections] == [one.name, one.name]
        with Client(listener, "::1") as six:
            assert await six.ask(b"six") == b"six"
            assert listener.connections[-1].sockname == ("::1", port)
        assert_all_accounted_for(listener.stats(), sent=3)
