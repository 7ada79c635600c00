"""A connection that ended is freed at once: a cycle would keep it, and OpenSSL's 20 KB, for the garbage collector."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import HEADER, reasons
from tests.core.connection.strangers import hello, rest, secure, serving
from tests.core.tls_clients import dial, run

from esockd_core import ProxyOptions
from esockd_core._connection.stream import StreamBase
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esockd_core import Handler, Listener, StreamConnection, TlsOptions

pytestmark = pytest.mark.anyio

COUNT = 5


def alive() -> int:
    return sum(isinstance(each, StreamBase) for each in gc.get_objects())


def saying(what: bytes) -> Callable[[Listener], None]:
    def talk(listener: Listener) -> None:
        with dial(listener, what) as client, suppress(OSError):
            client.shutdown(1)
            rest(client)

    return talk


def with_tls(listener: Listener) -> None:
    with secure(dial(listener)) as client:
        client.sendall(b"x")
        client.recv(1)
        client.unwrap().close()


async def left_by(handler: Handler, talk: Callable[[Listener], None], options: dict[str, Any], *rehearsed: str) -> int:
    async with serving(handler, **options) as listener:
        if rehearsed:
            await listener.rehearse(*rehearsed, max_connections_per_source=3)
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(COUNT):
                await run(lambda: talk(listener))
            await reasons(listener, COUNT)
            await anyio.sleep(0.1)
            return alive() - before
        finally:
            gc.enable()


@pytest.mark.parametrize(
    "how", ["plain", "tls", "handshake failed", "half a handshake", "no header", "half a header", "denied"]
)
async def test_connections_are_freed_whatever_their_end(handler: Handler, tls: TlsOptions, how: str) -> None:
    cases: dict[str, tuple[Callable[[Listener], None], dict[str, Any]]] = {
        "plain": (saying(b"x"), {}),
        "tls": (with_tls, {"tls": tls}),
        "handshake failed": (saying(b"GET / HTTP/1.0\r\n\r\n"), {"tls": tls}),
        "half a handshake": (saying(hello()), {"tls": tls}),
        "no header": (saying(b"GET / HTTP/1.0\r\n\r\n"), {"proxy_protocol": True}),
        "half a header": (saying(HEADER[:20]), {"proxy_protocol": True}),
        "denied": (saying(HEADER), {"proxy_protocol": True, "access_rules": ["deny 192.0.2.7"]}),
    }
    talk, options = cases[how]
    assert await left_by(handler, talk, options) <= 1  # trio remembers the task that ended last


@pytest.mark.parametrize("rule", ["deny 127.0.0.1", "deny 192.0.2.7", "deny 203.0.113.1"])
async def test_connections_are_freed_while_a_change_is_rehearsed(handler: Handler, rule: str) -> None:
    headers = {"proxy_protocol": ProxyOptions(access_rules_on="both"), "access_rules": ["deny 192.0.2.0/24"]}
    assert await left_by(handler, saying(HEADER), headers, "allow 192.0.2.0/28", rule) <= 1
    assert await left_by(handler, saying(b"x"), {}, "allow 192.0.2.0/28", rule) <= 1


@pytest.fixture
async def upstream_port(handler: Handler) -> AsyncIterator[int | None]:
    async with serving(handler) as listener:
        yield listener.port


async def test_forwarded_connections_are_freed(upstream_port: int) -> None:
    assert await left_by(ForwardHandler(f"127.0.0.1:{upstream_port}"), saying(b"x"), {}) <= 2


async def test_connections_whose_upstream_or_handler_failed_are_freed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "esockd_core")  # a record that is kept keeps its error

    async def fail(connection: StreamConnection) -> None:
        raise ValueError

    assert await left_by(ForwardHandler("127.0.0.1:1"), saying(b"x"), {}) <= 1
    assert await left_by(fail, saying(b"x"), {}) <= 1
