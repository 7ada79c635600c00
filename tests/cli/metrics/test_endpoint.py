"""The endpoint for metrics and probes, asked over real sockets by clients good and bad."""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from esockd_cli.metrics import endpoint as endpoint_module
from esockd_cli.metrics.address import read_metrics_address
from esockd_cli.metrics.endpoint import serve_metrics
from esockd_cli.metrics.http import MAX_HEAD_BYTES, BadRequest, Request, read_request
from esockd_core import InvalidAddress, Server, parse_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

    from esockd_core import StreamConnection

PATIENCE_S = 90.0


async def echo(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[tuple[str, int]]:
    """The endpoint of a server, as host and port."""
    with anyio.fail_after(PATIENCE_S):
        async with serve_metrics(server, parse_address("127.0.0.1:0")) as listener:
            assert listener is not None
            host, _, port = listener.addresses[0].rpartition(":")
            yield host, int(port)


async def read_all(stream: SocketStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return received


async def ask(place: tuple[str, int], request: bytes) -> tuple[int, str, bytes]:
    """Send a request; give status, head and body of the answer."""
    async with await anyio.connect_tcp(*place) as stream:
        await stream.send(request)
        answer = await read_all(stream)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


async def get(place: tuple[str, int], path: str) -> tuple[int, bytes]:
    status, head, body = await ask(place, f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert f"Content-Length: {len(body)}" in head
    assert "Connection: close" in head
    return status, body


@pytest.mark.anyio
async def test_metrics_health_and_readiness_are_served() -> None:
    async with Server() as server, serving(server) as place:
        assert await get(place, "/readyz") == (503, b"no listener is open\n")
        listener = await server.open("echo", "127.0.0.1:0", echo)
        assert await get(place, "/readyz") == (200, b"ok\n")
        assert await get(place, "/healthz") == (200, b"ok\n")
        assert await get(place, "/") == (200, b"/metrics\n/healthz\n/readyz\n")
        assert (await get(place, "/nothing"))[0] == 404
        status, text = await get(place, "/metrics?from=test")
        assert status == 200
        names = {family.name for family in text_string_to_metric_families(text.decode())}
        assert {"esockd_accepts", "esockd_connections_active", "process_open_fds"} <= names
        await listener.suspend()
        assert await get(place, "/readyz") == (503, b"suspended: echo\n")
        assert (await get(place, "/healthz"))[0] == 200


@pytest.mark.anyio
async def test_metrics_are_served_while_the_listeners_drain() -> None:
    async with Server() as server, serving(server) as place, anyio.create_task_group() as tasks:
        listener = await server.open("echo", "127.0.0.1:0", echo, shutdown_timeout=None)
        async with await anyio.connect_tcp("127.0.0.1", listener.port or 0) as client:
            await client.send(b"hello")
            assert await client.receive() == b"hello"
            tasks.start_soon(listener.close)
            while (await get(place, "/readyz"))[0] != 503:
                await anyio.lowlevel.checkpoint()
            text = (await get(place, "/metrics"))[1].decode()
        assert 'esockd_connections_active{listener="echo",transport="tcp"} 1.0' in text
        assert 'esockd_listener_state{listener="echo",state="draining",transport="tcp"} 1.0' in text


@pytest.mark.anyio
async def test_head_gives_the_same_head_and_no_body() -> None:
    async with Server() as server, serving(server) as place:
        status, head, body = await ask(place, b"HEAD /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (status, body) == (200, b"")
        assert "Content-Length: 3" in head


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n", 200),
    ],
)
async def test_what_is_no_request_for_looking_gets_an_error_and_the_end(request_text: bytes, status: int) -> None:
    async with Server() as server, serving(server) as place:
        assert (await ask(place, request_text))[0] == status
        assert (await get(place, "/healthz"))[0] == 200


@pytest.mark.anyio
async def test_clients_that_ask_nothing_are_ended_and_the_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "EXCHANGE_S", 0.1)
    async with Server() as server, serving(server) as place:
        for beginning in (b"", b"GET /metrics HTTP/1.1\r\n"):
            async with await anyio.connect_tcp(*place) as idle:
                await idle.send(beginning)
                assert await read_all(idle) == b""


@pytest.mark.anyio
async def test_more_clients_than_there_is_room_for_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace  # noqa: PLC0415

    monkeypatch.setattr(endpoint_module, "OPTIONS", replace(endpoint_module.OPTIONS, max_connections=1))
    async with Server() as server, serving(server) as place, await anyio.connect_tcp(*place) as first:
        await first.send(b"GET ")
        async with await anyio.connect_tcp(*place) as second:
            assert (await read_all(second)).startswith(b"HTTP/1.1 503 ")


@pytest.mark.anyio
async def test_metrics_may_be_on_a_unix_socket(tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        address = parse_address(f"unix:{tmp_path / 'm'}")
        async with (
            Server() as server,
            serve_metrics(server, address),
            await anyio.connect_unix(tmp_path / "m") as stream,
        ):
            await stream.send(b"GET /healthz HTTP/1.1\r\n\r\n")
            received = b""
            while not received.endswith(b"ok\n"):
                received += await stream.receive()


@pytest.mark.parametrize(
    ("text", "expected"), [(":9100", "9100"), ("9100", "9100"), ("*:9100", "*:9100"), ("unix:/run/m", "unix:/run/m")]
)
def test_a_port_alone_is_for_this_machine_only(text: str, expected: str) -> None:
    assert read_metrics_address(text) == parse_address(expected)


@pytest.mark.parametrize("text", ["udp://*:9100", "tls://*:9100", "dtls://9100", ":x", "", "here:"])
def test_metrics_are_served_on_addresses_of_plain_streams(text: str) -> None:
    with pytest.raises(InvalidAddress):
        read_metrics_address(text)


def test_a_path_ends_where_its_query_begins() -> None:
    assert read_request(b"GET /metrics?a=1 HTTP/1.1\r\nHost: x") == Request("/metrics", is_head=False)


@pytest.mark.parametrize("head", [b"", b"\r\nx", b"get / HTTP/1.1", b"GET /\x80 HTTP/1.1", b"GET / HTTP/1.1x"])
def test_a_line_that_asks_for_nothing_is_a_bad_request(head: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(head)
    assert caught.value.status == HTTPStatus.BAD_REQUEST
