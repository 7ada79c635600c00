"""The listener wrapper: the five policies, and upstreams that misbehave, on every backend."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from esockd_proxyproto import Endpoint, Policy, ProxyHeader, Tolerance, encode, policy_by_network
from esockd_proxyproto.listener import ProxyProtocolListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_proxyproto.streams import ProxiedStream

pytestmark = pytest.mark.anyio

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
V2 = encode(ProxyHeader(source=Endpoint("192.0.2.1", 56324), destination=Endpoint("198.51.100.7", 443)))


async def tell_peer(stream: ProxiedStream) -> None:
    """Answer with the peer's host as the handler sees it, and what it sent."""
    async with stream:
        data = b"".join([data async for data in stream])
        await stream.send(stream.extra(SocketAttribute.remote_address)[0].encode() + b"|" + data)


class Served:
    def __init__(self, listener: ProxyProtocolListener) -> None:
        self.listener = listener
        self.port: int = listener.extra(SocketAttribute.local_port)

    async def connect(self) -> SocketStream:
        return await anyio.connect_tcp("127.0.0.1", self.port)

    async def ask(self, data: bytes, *, eof: bool = True) -> bytes:
        """Send data; give the answer, or nothing when the connection is closed or reset."""
        answer = b""
        with anyio.fail_after(10):
            async with await self.connect() as client:
                with contextlib.suppress(anyio.BrokenResourceError, OSError):
                    if data:
                        await client.send(data)
                    if eof:
                        await client.send_eof()
                    async for part in client:
                        answer += part
        return answer


@contextlib.asynccontextmanager
async def serving(*arguments: Any, **options: Any) -> AsyncIterator[Served]:
    listener = ProxyProtocolListener(await anyio.create_tcp_listener(local_host="127.0.0.1"), *arguments, **options)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, tell_peer)
        yield Served(listener)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize(
    ("policy", "with_header", "without_header"),
    [
        (Policy.REQUIRE, b"192.0.2.1|hello", b""),
        (Policy.USE, b"192.0.2.1|hello", b"127.0.0.1|hello"),
        (Policy.IGNORE, b"127.0.0.1|hello", b"127.0.0.1|hello"),
        (Policy.REJECT, b"", b"127.0.0.1|hello"),
        (Policy.SKIP, b"127.0.0.1|%shello", b"127.0.0.1|hello"),
    ],
)
async def test_each_policy(policy: Policy, with_header: bytes, without_header: bytes, header: bytes) -> None:
    async with serving(policy) as served:
        assert await served.ask(header + b"hello") == with_header.replace(b"%s", header)
        assert await served.ask(b"hello") == without_header


async def test_a_header_is_required_by_default() -> None:
    async with serving() as served:
        assert await served.ask(b"GET /") == b""
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
        assert served.listener.refused == {"invalid": 1}


async def test_local_keeps_the_sockets_own_addresses() -> None:
    async with serving() as served:
        assert await served.ask(bytes.fromhex("0d0a0d0a000d0a515549540a20000000") + b"ping") == b"127.0.0.1|ping"
        assert await served.ask(b"PROXY UNKNOWN\r\nping") == b"127.0.0.1|ping"


async def test_policies_go_by_upstream() -> None:
    policy = policy_by_network({"127.0.0.0/8": Policy.USE}, default=Policy.REJECT)
    async with serving(policy) as served:
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
    async with serving(policy_by_network({"10.0.0.0/8": Policy.USE}, default=Policy.REJECT)) as served:
        assert await served.ask(V1 + b"hello") == b""
        assert served.listener.refused == {"rejected": 1}


async def test_every_refusal_is_counted_by_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esockd_proxyproto")
    async with serving(timeout_s=0.2) as served:
        await served.ask(b"PROXY TCP4 1.2.3.256 ")
        await served.ask(b"PROXY TCP4")
        await served.ask(b"PROXY TCP4", eof=False)
        assert served.listener.refused == {"invalid": 1, "truncated": 1, "timeout": 1}
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "refused a connection (invalid)",
        "refused a connection (truncated)",
        "refused a connection (timeout)",
    ]


async def test_a_port_check_is_a_counter_and_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "esockd_proxyproto")
    async with serving() as served:
        assert await served.ask(b"") == b""
        assert served.listener.refused == {"truncated": 1}
    assert not caplog.records


async def test_a_stalled_upstream_costs_only_itself() -> None:
    async with serving(timeout_s=60) as served, await served.connect() as stalled:
        await stalled.send(V1[:-1])
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
        await stalled.send(V1[-1:] + b"late")
        await stalled.send_eof()
        with anyio.fail_after(10):
            assert await stalled.receive() == b"192.0.2.1|late"


async def test_a_policy_that_raises_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esockd_proxyproto")
    upstreams: list[object] = []

    def policy(upstream: object) -> Policy:
        upstreams.append(upstream)
        if len(upstreams) == 1:
            raise KeyError(upstream)
        return Policy.REQUIRE

    async with serving(policy) as served:
        assert await served.ask(V1 + b"hello") == b""
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
        assert served.listener.refused == {"policy": 1}
    assert "KeyError" in caplog.text


async def test_cancelling_the_listener_closes_connections_that_wait_for_a_header() -> None:
    async with serving(timeout_s=60) as served:
        client = await served.connect()
        await client.send(b"PROXY")
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
    async with client:
        with anyio.fail_after(10), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await client.receive()


async def test_the_listener_keeps_the_codecs_options() -> None:
    async with serving(tolerate=Tolerance.LF_LINE_END) as served:
        assert await served.ask(b"PROXY UNKNOWN\nhello") == b"127.0.0.1|hello"
    async with serving(max_length=216) as served:
        assert await served.ask(V2[:14] + b"\0\xd9") == b""


async def test_a_listener_with_wrong_options_is_never_made() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        with pytest.raises(ValueError, match="max_length is 1 bytes"):
            ProxyProtocolListener(listener, max_length=1)
        with pytest.raises(ValueError, match="'maybe'"):
            ProxyProtocolListener(listener, "maybe")  # type: ignore[arg-type]


async def test_closing_the_wrapper_closes_the_listener() -> None:
    listener = ProxyProtocolListener(await anyio.create_tcp_listener(local_host="127.0.0.1"))
    port = listener.extra(SocketAttribute.local_port)
    await listener.aclose()
    with pytest.raises(OSError, match="connection"):
        await anyio.connect_tcp("127.0.0.1", port)
