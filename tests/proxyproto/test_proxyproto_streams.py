"""Headers on real streams, on every backend: no byte lost, one deadline, clear ends."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from esockd_proxyproto import (
    Endpoint,
    InvalidHeader,
    NotProxyHeader,
    ProxyHeader,
    Tlv,
    UnencodableHeader,
    UnixEndpoint,
    decode,
    encode,
)
from esockd_proxyproto.streams import (
    HeaderTimeout,
    HeaderTruncated,
    ProxiedStream,
    look_for_header,
    receive_header,
    send_header,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

SOURCE, DESTINATION = Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)
HEADERS = [
    ProxyHeader(1, source=SOURCE, destination=DESTINATION),
    ProxyHeader(1),
    ProxyHeader(source=SOURCE, destination=DESTINATION, tlvs=[Tlv(1, b"h2"), Tlv(4, bytes(300))]),
]


@contextlib.asynccontextmanager
async def stream_pair() -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    """Both ends of one TCP connection on the loopback interface."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    accepted: list[ByteStream] = []
    arrived, finished = anyio.Event(), anyio.Event()

    async def keep(stream: ByteStream) -> None:
        accepted.append(stream)
        arrived.set()
        await finished.wait()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, keep)
        port = listener.extra(SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as client:
            with anyio.fail_after(30):
                await arrived.wait()
            async with accepted[0]:
                yield client, accepted[0]
        tasks.cancel_scope.cancel()


async def receive_all(stream: ByteStream) -> bytes:
    with anyio.fail_after(30):
        return b"".join([data async for data in stream])


@pytest.mark.parametrize("header", HEADERS)
async def test_bytes_behind_the_header_stay_in_the_stream(header: ProxyHeader) -> None:
    async with stream_pair() as (client, server):
        await client.send(encode(header) + b"hello")
        await client.send_eof()
        assert await receive_header(server) == header
        assert await receive_all(server) == b"hello"


@pytest.mark.parametrize("header", HEADERS)
async def test_a_header_may_arrive_byte_by_byte(header: ProxyHeader) -> None:
    async with stream_pair() as (client, server), anyio.create_task_group() as tasks:

        async def dribble() -> None:
            for byte in encode(header)[:120] if header.tlvs else encode(header):
                await client.send(bytes([byte]))
            await client.send(encode(header)[120:] + b"hello")
            await client.send_eof()

        tasks.start_soon(dribble)
        assert await receive_header(server) == header
        assert await receive_all(server) == b"hello"


async def test_a_sent_header_comes_first() -> None:
    async with stream_pair() as (client, server):
        await send_header(client, HEADERS[2], checksum=True)
        await client.send(b"hello")
        await client.send_eof()
        header, consumed = decode(data := await receive_all(server))
        assert header.crc32c is not None
        assert data[consumed:] == b"hello"


async def test_a_header_that_cannot_be_written_sends_nothing() -> None:
    async with stream_pair() as (client, server):
        with pytest.raises(UnencodableHeader):
            await send_header(client, ProxyHeader(source=SOURCE))
        await client.send_eof()
        assert await receive_all(server) == b""


@pytest.mark.parametrize("receive", [receive_header, look_for_header])
async def test_a_stalled_header_meets_the_deadline(
    receive: Callable[..., Awaitable[object]],
) -> None:
    async with stream_pair() as (client, server):
        await client.send(b"PROXY TCP4 192.0.2.1")
        with anyio.fail_after(30), pytest.raises(HeaderTimeout, match=r"within 0\.05 s; 20 bytes") as caught:
            await receive(server, timeout=0.05)
        assert caught.value.received == b"PROXY TCP4 192.0.2.1"


async def test_a_header_that_dribbles_meets_the_deadline_of_the_whole() -> None:
    async with stream_pair() as (client, server), anyio.create_task_group() as tasks:

        async def dribble() -> None:
            for byte in encode(HEADERS[2]):
                await client.send(bytes([byte]))
                await anyio.sleep(0.02)

        tasks.start_soon(dribble)
        with anyio.fail_after(30), pytest.raises(HeaderTimeout):
            await receive_header(server, timeout=0.2)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("receive", [receive_header, look_for_header])
async def test_a_header_that_came_in_time_counts_although_the_program_stalled_beyond_the_deadline(
    receive: Callable[..., Awaitable[object]],
) -> None:
    async with stream_pair() as (client, server), anyio.create_task_group() as tasks:
        received: list[object] = []

        async def note() -> None:
            received.append(await receive(server, timeout=0.2))

        tasks.start_soon(note)
        await anyio.wait_all_tasks_blocked()
        os.write(client.extra(SocketAttribute.raw_socket).fileno(), encode(HEADERS[0]))
        time.sleep(0.3)  # noqa: ASYNC251 - the program blocks its event loop
        with anyio.fail_after(30):
            while not received:  # noqa: ASYNC110 - bounded above
                await anyio.sleep(0.01)
    assert received in ([HEADERS[0]], [(HEADERS[0], b"")])


@pytest.mark.parametrize("receive", [receive_header, look_for_header])
async def test_a_header_cut_short_is_told_from_an_invalid_one(
    receive: Callable[..., Awaitable[object]],
) -> None:
    async with stream_pair() as (client, server):
        await client.send(b"PROXY TCP4 192.0.2.1")
        await client.send_eof()
        with pytest.raises(HeaderTruncated, match="closed after 20 bytes") as caught:
            await receive(server)
        assert caught.value.received == b"PROXY TCP4 192.0.2.1"


@pytest.mark.parametrize("receive", [receive_header, look_for_header])
async def test_a_wrong_header_is_invalid_at_once(
    receive: Callable[..., Awaitable[object]],
) -> None:
    async with stream_pair() as (client, server):
        await client.send(b"PROXY TCP4 192.0.2.256 ")
        with anyio.fail_after(30), pytest.raises(InvalidHeader):
            await receive(server, timeout=60)


async def test_another_protocol_is_no_header() -> None:
    async with stream_pair() as (client, server):
        await client.send(b"G")
        with anyio.fail_after(30), pytest.raises(NotProxyHeader):
            await receive_header(server, timeout=None)


@pytest.mark.parametrize("header", HEADERS)
async def test_looking_for_a_header_finds_it(header: ProxyHeader) -> None:
    async with stream_pair() as (client, server):
        await client.send(encode(header) + b"hello")
        await client.send_eof()
        assert await look_for_header(server) == (header, b"")
        assert await receive_all(server) == b"hello"


@pytest.mark.parametrize("data", [b"POST / HTTP/1.1\r\n\r\n" * 9, b"\r\n", b"PROXY", b"\x16\x03\x01", b""])
async def test_looking_for_a_header_gives_back_what_is_none(data: bytes) -> None:
    async with stream_pair() as (client, server):
        if data:
            await client.send(data)
        await client.send_eof()
        header, unread = await look_for_header(server)
        assert header is None
        stream = ProxiedStream(server, header, unread)
        assert await stream.receive(1) == data[:1] if data else True
        assert await receive_all(stream) == data[1:]


@pytest.mark.parametrize("data", [b"", b"\r\n"])
async def test_looking_for_a_header_takes_silence_for_none(data: bytes) -> None:
    async with stream_pair() as (client, server):
        if data:
            await client.send(data)
        with anyio.fail_after(30):
            assert await look_for_header(server, timeout=0.05) == (None, data)


async def test_a_proxied_stream_has_the_addresses_of_its_header() -> None:
    async with stream_pair() as (_, server):
        stream = ProxiedStream(server, HEADERS[0])
        assert stream.extra(SocketAttribute.remote_address) == ("192.0.2.1", 56324)
        assert stream.extra(SocketAttribute.remote_port) == 56324
        assert stream.extra(SocketAttribute.local_address) == ("198.51.100.7", 443)
        assert stream.extra(SocketAttribute.local_port) == 443
        assert stream.extra(SocketAttribute.family) == socket.AF_INET
        assert stream.header is HEADERS[0]
        assert stream.transport_stream is server


async def test_a_proxied_stream_of_a_unix_client_has_paths_and_no_ports() -> None:
    header = ProxyHeader(source=UnixEndpoint("/run/a"), destination=UnixEndpoint(b"\0b"))
    async with stream_pair() as (_, server):
        stream = ProxiedStream(server, header)
        assert stream.extra(SocketAttribute.remote_address) == "/run/a"
        assert stream.extra(SocketAttribute.local_address) == os.fsdecode(b"\0b")
        assert stream.extra(SocketAttribute.remote_port, None) is None


@pytest.mark.parametrize("header", [None, ProxyHeader(1)])
async def test_a_proxied_stream_without_addresses_keeps_those_of_the_socket(header: ProxyHeader | None) -> None:
    async with stream_pair() as (client, server):
        stream = ProxiedStream(server, header)
        assert stream.extra(SocketAttribute.remote_address) == client.extra(SocketAttribute.local_address)


async def test_a_proxied_stream_is_a_byte_stream() -> None:
    async with stream_pair() as (client, server):
        stream = ProxiedStream(server, HEADERS[0], b"unread")
        await client.send(b"sent")
        assert await stream.receive(4) == b"unre"
        assert await stream.receive() == b"ad"
        assert await stream.receive() == b"sent"
        await stream.send(b"hello")
        await stream.send_eof()
        assert await receive_all(client) == b"hello"
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await server.send(b"x")


async def test_a_proxied_stream_gives_no_byte_to_two_tasks_and_none_after_its_end() -> None:
    async with stream_pair() as (_, server):
        stream = ProxiedStream(server, None, b"unread")
        busy: list[str] = []

        async def receive() -> None:
            try:
                await stream.receive(6)
            except anyio.BusyResourceError:
                busy.append("busy")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            tasks.start_soon(receive)
        assert busy == ["busy"]
    async with stream_pair() as (_, server):
        stream = ProxiedStream(server, None, b"unread")
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()


@pytest.mark.parametrize("max_bytes", [0, -1])
@pytest.mark.parametrize("unread", [b"", b"unread"])
async def test_a_proxied_stream_refuses_to_receive_less_than_a_byte(max_bytes: int, unread: bytes) -> None:
    async with stream_pair() as (client, server):
        await client.send(b"sent")
        with pytest.raises(ValueError, match="max_bytes"):
            await ProxiedStream(server, None, unread).receive(max_bytes)
