"""What AnyIO wraps around byte streams works around a connection, TLS too; and what a connection tells of itself."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream
from anyio.streams.text import TextStream
from anyio.streams.tls import TLSAttribute, TLSStream

from esockd_core import CallbackHandler, Connection, Handler, StreamConnection, open_listener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import Serve

pytestmark = pytest.mark.anyio


async def test_a_buffered_stream_reads_lines_and_exact_sizes(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        stream = BufferedByteReceiveStream(connection)
        size = int(await stream.receive_until(b"\n", 20))
        await connection.send(await stream.receive_exactly(size))

    async with serve(handle) as (listener, client):
        await client.send(b"6\nabc")
        await client.send(b"defg")
        assert await client.receive() == b"abcdef"
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_a_text_stream_decodes_characters_split_over_packets(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        stream = TextStream(connection)
        text = ""
        while "!" not in text:
            text += await stream.receive()
        await stream.send(text.upper())

    async with serve(handle) as (_, client):
        for byte in "grüße!".encode():
            await client.send(bytes([byte]))
        assert await client.receive() == "GRÜSSE!".encode()


async def test_a_stapled_stream_joins_two_connections(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        stapled = StapledByteStream(send_stream=connection, receive_stream=connection)
        await stapled.send(await stapled.receive())
        await stapled.send_eof()
        await stapled.aclose()

    async with serve(handle) as (listener, client):
        await client.send(b"both ways")
        assert b"".join([data async for data in client]) == b"both ways"
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_tls_runs_over_a_connection(serve: Serve) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    sent = bytes(range(256)) * 8_192  # 2 MiB

    async def handle(connection: StreamConnection) -> None:
        tls = await TLSStream.wrap(connection, server_side=True, ssl_context=server_context, standard_compatible=True)
        assert tls.extra(SocketAttribute.remote_address) == connection.peername
        assert tls.extra(TLSAttribute.tls_version).startswith("TLSv1.")
        async with tls:
            received = b""
            while len(received) < len(sent):
                received += await tls.receive()
            await tls.send(received)
            with pytest.raises(anyio.EndOfStream):
                await tls.receive()

    async with serve(handle) as (listener, client):
        tls = await TLSStream.wrap(client, hostname="localhost", ssl_context=client_context)
        received = bytearray()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(tls.send, sent)
            while len(received) < len(sent):
                received += await tls.receive()
        assert received == sent
        await tls.aclose()
    assert listener.stats().shutdown_counts == {"normal": 1}


# What a connection tells of itself


def describe(connection: StreamConnection) -> bytes:
    raw = connection.extra(SocketAttribute.raw_socket)
    return json.dumps(
        {
            "family": connection.extra(SocketAttribute.family),
            "local": [connection.extra(SocketAttribute.local_address), connection.sockname],
            "remote": [connection.extra(SocketAttribute.remote_address), connection.peername],
            "raw family": raw.family,
            "socket_peername": connection.socket_peername,
            "state": connection.state,
        }
    ).encode()


async def telling(connection: StreamConnection) -> None:
    await connection.send(describe(connection))


class Telling(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(describe(connection))
        connection.close_nowait()


async def test_a_name_without_a_file_is_to_anyio_what_the_kernel_says() -> None:
    """AnyIO's own streams give bytes there, which connect to it again; `sockname` is text as everywhere."""
    name = f"esockd-test-{os.getpid()}"
    told: list[object] = []

    async def tell(connection: StreamConnection) -> None:
        told.extend([connection.extra(SocketAttribute.local_address), connection.sockname])
        await connection.send(b"told")

    with anyio.fail_after(30):
        async with open_listener("tell", f"unix:@{name}", tell), await anyio.connect_unix(f"\0{name}") as client:
            assert await client.receive() == b"told"
            assert told == [client.extra(SocketAttribute.remote_address), f"@{name}"]
            assert told[0] == f"\0{name}".encode()


BOTH_STYLES = pytest.mark.parametrize("handler", [telling, Telling()], ids=["coroutine", "callback"])


@BOTH_STYLES
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_internet_connection_tells_its_addresses(host: str, handler: Handler) -> None:
    async with open_listener("test", (host, 0), handler) as listener:
        assert listener.port is not None
        async with await anyio.connect_tcp(host, listener.port) as client:
            told = json.loads(b"".join([data async for data in client]))
            local = list(client.extra(SocketAttribute.local_address)[:2])
    assert told == {
        "family": socket.AF_INET6 if ":" in host else socket.AF_INET,
        "local": [[host, listener_port(told)]] * 2,
        "remote": [local, local],
        "raw family": socket.AF_INET6 if ":" in host else socket.AF_INET,
        "socket_peername": local,
        "state": "open",
    }


def listener_port(told: dict[str, list[list[int]]]) -> int:
    return told["local"][0][1]


async def test_an_ipv4_client_of_a_dual_stack_listener_has_an_ipv4_name() -> None:
    async with open_listener("test", "*:0", telling) as listener:
        assert listener.port is not None
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
            told = json.loads(b"".join([data async for data in client]))
    assert told["remote"][0][0] == told["local"][0][0] == "127.0.0.1"


@BOTH_STYLES
async def test_a_unix_connection_serves_and_tells_its_path(tmp_path: Path, handler: Handler) -> None:
    path = str(tmp_path / "socket")
    async with open_listener("test", f"unix:{path}", handler) as listener, await anyio.connect_unix(path) as client:
        told = json.loads(b"".join([data async for data in client]))
    assert told == {
        "family": socket.AF_UNIX,
        "local": [path, path],
        "remote": ["", ""],
        "raw family": socket.AF_UNIX,
        "socket_peername": "",
        "state": "open",
    }
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_unix_connections_carry_mebibytes_both_ways_and_half_close(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sent = bytes(range(256)) * 4 * 4_096  # 4 MiB

    async def echo(connection: Connection) -> None:
        async for data in connection:
            await connection.send(data)

    async def push(client: ByteStream) -> None:
        await client.send(sent)
        await client.send_eof()

    async with open_listener("test", f"unix:{path}", echo) as listener:
        client = await anyio.connect_unix(path)
        async with client, anyio.create_task_group() as task_group:
            task_group.start_soon(push, client)
            assert b"".join([data async for data in client]) == sent
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_ids_count_up_and_bytes_and_times_are_true(serve: Serve) -> None:
    kept: list[StreamConnection] = []

    async def handle(connection: StreamConnection) -> None:
        kept.append(connection)
        await connection.send(await connection.receive() * 2)
        assert (connection.bytes_in, connection.bytes_out) == (3, 6)

    before = time.time()
    async with serve(handle) as (listener, first):
        assert listener.port is not None
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as second:
            for client in (first, second):
                await client.send(b"abc")
                assert b"".join([data async for data in client]) == b"abcabc"
    assert kept[1].id == kept[0].id + 1
    assert before <= kept[0].opened_at <= kept[1].opened_at <= time.time()
    for connection in kept:  # what an `on_event` hook may ask when all is over
        assert connection.state == "closed"
        assert connection.peername[0] == "127.0.0.1"
        assert connection.sockname[0] == "127.0.0.1"
        assert (connection.bytes_in, connection.bytes_out) == (3, 6)
