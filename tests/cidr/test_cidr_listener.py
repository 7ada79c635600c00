"""AccessListener: what the rules refuse never reaches the handler, on every backend and over real sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import Listener, SocketAttribute, SocketStream

from esockd_cidr import AccessList
from esockd_cidr.listener import AccessListener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio


async def echo(stream: SocketStream) -> None:
    async with stream:
        await stream.send(await stream.receive())


async def ask(connect: Callable[[], Any]) -> bytes:
    """Send one byte and return the reply, empty when the connection was closed instead."""
    with anyio.fail_after(30):
        async with await connect() as stream:
            try:
                await stream.send(b"x")
                reply: bytes = await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):  # a refused socket resets, or ends first
                return b""
            return reply


async def test_the_rules_decide_who_reaches_the_handler_and_each_connection_is_counted() -> None:
    access = AccessList(["deny 127.0.0.1"])
    listener = AccessListener(await anyio.create_tcp_listener(local_host="127.0.0.1"), access)
    port = listener.extra(SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        connect = lambda: anyio.connect_tcp("127.0.0.1", port)  # noqa: E731
        assert await ask(connect) == b""
        access.remove("deny 127.0.0.1")
        assert await ask(connect) == b"x"
        listener.access = AccessList(default="deny")
        assert await ask(connect) == b""
        tasks.cancel_scope.cancel()
    assert (listener.accepted, listener.closed_forbidden, listener.closed_early) == (1, 2, 0)
    await listener.aclose()
    with pytest.raises(OSError, match=r".*"):
        await anyio.connect_tcp("127.0.0.1", port)


@pytest.mark.parametrize("rule", ["deny unix:", "deny all"])
async def test_peers_of_a_unix_socket_meet_the_rules_for_unix_and_for_all(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "s"
    access = AccessList([rule])
    async with AccessListener(await anyio.create_unix_listener(path), access) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            assert await ask(lambda: anyio.connect_unix(path)) == b""
            access.replace(["deny 0.0.0.0/0"])
            assert await ask(lambda: anyio.connect_unix(path)) == b"x"
            tasks.cancel_scope.cancel()
        assert (listener.accepted, listener.closed_forbidden) == (1, 1)


class Stream(anyio.abc.AsyncResource):
    """A connection from a given address, which remembers that it was closed."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True

    def extra(self, attribute: object, default: object = None) -> object:
        assert attribute is SocketAttribute.remote_address
        return default if self.address is None else self.address


class Script(Listener[Stream]):
    """A listener that yields given connections, one after the other, in the caller's task."""

    def __init__(self, *streams: Stream) -> None:
        self.streams = streams
        self.task_group: TaskGroup | None = None

    async def serve(self, handler: Callable[[Stream], Any], task_group: TaskGroup | None = None) -> None:
        self.task_group = task_group
        for stream in self.streams:
            await handler(stream)

    async def aclose(self) -> None: ...

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


@pytest.mark.parametrize("address", [None, ("host.example", 1), (3, 1024)], ids=["gone", "a name", "a vsock"])
async def test_a_connection_without_an_ip_address_is_closed_and_counted(address: Any) -> None:
    stream = Stream(address)
    listener = AccessListener(Script(stream), AccessList(["deny 10.0.0.0/8"]))
    handled: list[Stream] = []
    await listener.serve(handled.append)
    assert stream.closed
    assert handled == []
    assert listener.closed_early == (address is None)
    assert listener.closed_forbidden == (address is not None)


async def test_a_refused_connection_that_cannot_be_closed_properly_does_not_end_the_listener() -> None:
    class Unclosable(Stream):
        async def aclose(self) -> None:
            await super().aclose()
            raise anyio.BrokenResourceError

    streams = [Unclosable(("10.0.0.1", 1)), Unclosable(None), Stream(("10.0.0.2", 1))]
    listener = AccessListener(Script(*streams), AccessList(default="deny"))
    await listener.serve(echo)  # type: ignore[arg-type]
    assert all(stream.closed for stream in streams)
    assert (listener.closed_forbidden, listener.closed_early) == (2, 1)


async def test_an_ipv4_client_of_a_dual_stack_socket_meets_the_ipv4_rules() -> None:
    stream = Stream(("::ffff:127.0.0.1", 1))
    listener = AccessListener(Script(stream), AccessList(["deny 127.0.0.0/8"]))
    handled: list[Stream] = []
    await listener.serve(handled.append)
    assert (stream.closed, handled, listener.closed_forbidden) == (True, [], 1)


async def test_handlers_run_in_the_task_group_that_is_given() -> None:
    script = Script()
    async with anyio.create_task_group() as tasks:
        await AccessListener(script, AccessList()).serve(echo, tasks)  # type: ignore[arg-type]
    assert script.task_group is tasks


async def test_an_error_of_a_handler_is_not_swallowed() -> None:
    async def fail(_: Stream) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await AccessListener(Script(Stream((socket.inet_ntoa(b"\x7f\0\0\1"), 1))), AccessList()).serve(fail)
