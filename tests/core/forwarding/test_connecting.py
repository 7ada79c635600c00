"""Finding an upstream: several addresses, several upstreams, those that refuse and those that never answer."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import connect, until
from tests.core.forwarding.peers import (
    connected,
    echo,
    forwarding,
    open_files,
    read_all,
    reset,
    upstream,
)
from tests.ports import steady_port

from esockd_core._loops.asyncio.forward import UpstreamDriver
from esockd_core._loops.trio import forward as trio_forward
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyio.abc import SocketStream

    from esockd_core import Listener
    from esockd_core._connection.stream import StreamBase

pytestmark = pytest.mark.anyio


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address where connecting takes for ever: the kernel drops what a full backlog has no room for (listen(2))."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()


async def ask(listener: Listener) -> bytes:
    async with connected(listener) as client:
        await client.send(b"hello")
        await client.send_eof()
        return await read_all(client)


async def test_a_client_without_an_upstream_is_closed_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    port = steady_port()
    async with forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        assert await ask(listener) == b""
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"upstream_failed": 1}
    assert caplog.messages == [f"listener gateway: upstream 127.0.0.1:{port} failed: Connection refused"]


async def test_a_listener_does_not_forward_to_itself(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:  # of a test, on any address of this machine
        port = everywhere.getsockname()[1]
        async with forwarding(ForwardHandler(("127.0.0.1", port)), everywhere) as listener:
            assert await ask(listener) == b""
            await until(lambda: not listener.connections)
            assert listener.stats().shutdown_counts == {"upstream_failed": 1}
    assert caplog.messages == [f"listener gateway: upstream 127.0.0.1:{port} failed: it is this listener itself"]


async def test_the_log_stays_bounded_while_nobody_is_served(caplog: pytest.LogCaptureFixture) -> None:
    async with forwarding(ForwardHandler(("127.0.0.1", steady_port()))) as listener:
        for _ in range(40):
            assert await ask(listener) == b""
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"upstream_failed": 40}
    assert len([message for message in caplog.messages if "failed" in message]) < 20


async def test_an_upstream_that_never_answers_is_given_up_after_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with silent() as address:
        async with forwarding(ForwardHandler(address, connect_timeout=0.3)) as listener:
            assert await ask(listener) == b""
            await until(lambda: not listener.connections)
            assert listener.stats().shutdown_counts == {"upstream_failed": 1}
    assert caplog.messages == [f"listener gateway: upstream 127.0.0.1:{address[1]} failed: no answer in 0.3 s"]


async def test_the_next_upstream_takes_over_from_one_that_refuses_or_never_answers() -> None:
    with silent() as address:
        async with upstream(echo) as port:
            upstreams = [("127.0.0.1", steady_port()), address, ("127.0.0.1", port)]
            async with forwarding(ForwardHandler(upstreams, connect_timeout=0.3)) as listener:
                assert await ask(listener) == b"hello"
                assert await ask(listener) == b"hello"


async def test_the_first_upstream_is_preferred_again_once_it_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")

    async def say_first(stream: SocketStream) -> None:
        await read_all(stream)
        await stream.send(b"first")

    async def say_second(stream: SocketStream) -> None:
        await read_all(stream)
        await stream.send(b"second")

    monkeypatch.setattr("esockd_core._forwarding.upstreams.RETRY_AFTER_S", 0.0)
    async with upstream(say_first) as first, upstream(say_second) as second:
        handler = ForwardHandler([("127.0.0.1", first), ("127.0.0.1", second)])
        async with forwarding(handler) as listener:
            handler._upstreams.in_order()[0].failed()
            assert await ask(listener) == b"first"
            failed = handler._upstreams.in_order()[0]
            assert not failed.is_failing
            assert caplog.messages == [f"listener gateway: upstream 127.0.0.1:{first} works again"]
            failed.failed()
            failed.retry_at += 60
            assert await ask(listener) == b"second"


def resolving(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        await checkpoint()
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, 1, 6, "", (host, port)) for host, port in places]

    monkeypatch.setattr("esockd_core._forwarding.upstreams.anyio.getaddrinfo", resolve)


async def test_every_address_of_a_name_is_tried_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as address:
        async with upstream(echo) as port:
            resolving(monkeypatch, ("127.0.0.1", steady_port()), address, ("127.0.0.1", port))
            async with forwarding(ForwardHandler("redis.test:6379", connect_timeout=0.9)) as listener:
                assert await ask(listener) == b"hello"


async def test_a_name_is_resolved_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with upstream(echo) as port:
        resolving(monkeypatch, ("127.0.0.1", steady_port()))
        async with forwarding(ForwardHandler("redis.test:6379")) as listener:
            assert await ask(listener) == b""
            resolving(monkeypatch, ("127.0.0.1", port))
            assert await ask(listener) == b"hello"


async def test_a_name_that_is_none_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        await checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("esockd_core._forwarding.upstreams.anyio.getaddrinfo", resolve)
    async with forwarding(ForwardHandler("nowhere.test:6379")) as listener:
        assert await ask(listener) == b""
        resolving(monkeypatch)
        assert await ask(listener) == b""
    assert caplog.messages == [
        "listener gateway: upstream nowhere.test:6379 failed: Name or service not known",
        "listener gateway: upstream nowhere.test:6379 failed: its name has no address",
    ]


async def test_a_port_of_this_machine_is_tried_on_both_loopback_addresses() -> None:
    async def six(stream: SocketStream) -> None:
        await stream.send(b"six")

    async with await anyio.create_tcp_listener(local_host="::1") as server, anyio.create_task_group() as tasks:
        port = server.listeners[0].extra(anyio.abc.SocketAttribute.local_port)

        async def serve(stream: SocketStream) -> None:
            async with stream:
                await six(stream)

        tasks.start_soon(server.serve, serve)
        async with forwarding(ForwardHandler(port)) as listener, connected(listener) as client:
            assert await read_all(client) == b"six"
        tasks.cancel_scope.cancel()


async def test_a_unix_upstream_that_is_not_there_or_full_is_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{tmp_path}/upstream"
    async with forwarding(ForwardHandler(f"unix:{path}")) as listener:
        assert await ask(listener) == b""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket(socket.AF_UNIX))
        full.bind(path)
        full.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        async with forwarding(ForwardHandler(f"unix:{path}")) as listener:
            assert await ask(listener) == b""
            await until(lambda: not listener.connections)
            assert listener.stats().shutdown_counts == {"upstream_failed": 1}
    assert caplog.messages == [
        f"listener gateway: upstream unix:{path} failed: No such file or directory",
        f"listener gateway: upstream unix:{path} failed: its backlog is full",
    ]


async def test_an_upstream_that_is_lost_at_once_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lose(_: UpstreamDriver, connection: StreamBase) -> None:
        connection.close_socket()

    async def lose_when_open(connection: StreamBase, *arguments: object) -> None:
        connection.close_socket()
        await trio_open(connection, *arguments)  # type: ignore[arg-type]

    trio_open = trio_forward._open
    monkeypatch.setattr(UpstreamDriver, "start", lose)
    monkeypatch.setattr(trio_forward, "_open", lose_when_open)
    async with upstream(echo) as port, forwarding(ForwardHandler(("127.0.0.1", port), send_proxy="v1")) as listener:
        assert await ask(listener) == b""
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"upstream_failed": 1}
    assert caplog.messages == [f"listener gateway: upstream 127.0.0.1:{port} failed: it closed the connection at once"]


async def test_a_client_that_is_gone_before_its_upstream_is_found_leaves_nothing() -> None:
    async def wait(stream: SocketStream) -> None:
        await stream.receive()

    async with upstream(wait) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        for _ in range(20):
            async with connected(listener) as client:
                reset(client)
        await until(lambda: not listener.connections)
        assert not listener._site.watch.upstreams


async def test_killed_while_an_upstream_never_answers_it_leaves_no_descriptor() -> None:
    before = 0
    with silent() as address:
        for number in range(4):
            async with forwarding(ForwardHandler(address, connect_timeout=20), linger_timeout=0.1) as listener:
                with connect(listener):
                    await until(lambda: bool(listener.connections))
                    await anyio.sleep(0.05)
                    await listener.kill()
                    assert listener.stats().shutdown_counts in ({"shutdown": 1}, {"killed": 1})
            if number == 0:
                before = open_files()
        await until(lambda: open_files() <= before)
