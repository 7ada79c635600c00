"""Options that change under open connections: validated first, all or nothing, and nobody is lost."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import connect_stream, echo, until
from tests.core.listening.conftest import ask, is_refused
from tests.ports import steady_address

from esockd_core import (
    AddressInUse,
    CannotBind,
    Effect,
    InvalidOption,
    Listener,
    ListenerClosed,
    ListenerOptions,
    StreamConnection,
    TcpOptions,
    open_listener,
)

if TYPE_CHECKING:
    from esockd_core import Handler, TcpArguments


pytestmark = pytest.mark.anyio


async def test_options_change_while_connections_stay_open(handler: Handler) -> None:
    """esockd's t_update_options, where the backlog could not change."""
    tcp = TcpOptions(backlog=128)
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, acceptors=4, tcp=tcp) as listener,
            await connect_stream(listener) as first,
        ):
            assert await ask(first) == b"hello"
            plan = await listener.set_options(acceptors=8, tcp={"backlog": 256, "tune_buffer": True})
            assert {change.name for change in plan.changes} == {"acceptors", "tcp.backlog", "tcp.tune_buffer"}
            assert len(await listener.get_acceptors()) == 8
            assert listener.stats().accept_queue_limit == 256
            assert listener.options.tcp == TcpOptions(backlog=256, tune_buffer=True)
            async with await connect_stream(listener) as second:
                assert await ask(first, b"one") == b"one"
                assert await ask(second, b"two") == b"two"


async def test_an_error_among_several_options_changes_none_of_them(handler: Handler) -> None:
    """esockd's t_update_options_error."""
    bad: list[tuple[dict[str, Any], str]] = [
        ({"acceptors": 1, "access_rules": ["allow OOPS"]}, "OOPS"),
        ({"acceptors": 1, "tcp": {"backlog": 0}}, "backlog"),
        ({"acceptors": 1, "max_conections": 5}, 'Did you mean "max_connections"'),
        ({"acceptors": 1, "unix": {"mode": 0o600}}, "unix:PATH"),
        ({"acceptors": 1, "tcp": {"reuse_port": True}}, "reopen=True"),
        ({"acceptors": 1, "tls": {"certfile": "nowhere.pem"}}, "nowhere.pem"),
    ]
    with anyio.fail_after(20):
        async with (
            open_listener("echo", steady_address(), handler, acceptors=4) as listener,
            await connect_stream(listener) as first,
        ):
            before = listener.options
            for changes, message in bad:
                with pytest.raises(InvalidOption, match=message):
                    await listener.set_options(**changes)
                assert listener.options is before
            assert len(listener.acceptors) == 4
            async with await connect_stream(listener) as second:
                assert await ask(first) == await ask(second) == b"hello"


async def test_reset_options_puts_all_others_back_to_their_defaults() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, max_connections=5, access_rules=["deny 192.0.2.1"], idle_timeout=3
    ) as listener:
        plan = await listener.reset_options(idle_timeout=4)
        assert {change.name for change in plan.changes} == {"max_connections", "access_rules", "idle_timeout"}
        assert listener.options.max_connections == ListenerOptions().max_connections
        assert listener.options.idle_timeout == 4
        assert (await listener.get_access_rules()).rules == ()


async def test_a_plan_says_what_would_change_and_changes_nothing() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        plan = await listener.plan_options(max_connections=5, tcp={"nodelay": False, "reuse_port": True})
        assert [(change.name, change.effect) for change in plan.changes] == [
            ("max_connections", Effect.LIVE),
            ("tcp.reuse_port", Effect.REOPEN),
            ("tcp.nodelay", Effect.NEW_CONNECTIONS),
        ]
        assert listener.options == ListenerOptions(access_rules=listener.access_rules)
        with pytest.raises(InvalidOption, match="max_connections"):
            await listener.plan_options(max_connections=0)


async def test_live_rules_outlast_a_change_of_other_options() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["allow 127.0.0.0/8"]) as listener:
        await listener.deny("127.0.0.2")
        await listener.set_options(max_connections=5)
        assert [str(rule) for rule in listener.options.access_rules] == ["deny 127.0.0.2", "allow 127.0.0.0/8"]


async def test_rules_set_as_an_option_replace_the_live_ones_in_the_list_that_programs_hold() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["allow 127.0.0.0/8"]) as listener:
        held = listener.access_rules
        await listener.deny("127.0.0.2")
        await listener.set_options(access_rules=["allow 127.0.0.0/8"])
        assert [str(rule) for rule in held] == ["allow 127.0.0.0/8"]
        assert listener.access_rules is held


async def test_the_handler_is_exchanged_for_connections_to_come() -> None:
    async def hey(connection: StreamConnection) -> None:
        await connection.send(b"HEY")

    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, await connect_stream(listener) as first:
            await ask(first)
            await listener.set_handler(hey)
            async with await connect_stream(listener) as second:
                assert await second.receive() == b"HEY"
            assert await ask(first) == b"hello"


async def test_an_option_of_the_socket_holds_for_connections_to_come() -> None:
    seen: list[tuple[int, int]] = []

    async def look(connection: StreamConnection) -> None:
        raw = connection.extra(anyio.abc.SocketAttribute.raw_socket)
        keepalive = raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        seen.append((raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), keepalive))

    with anyio.fail_after(20):
        async with open_listener("look", "127.0.0.1:0", look) as listener:
            steps: list[TcpArguments] = [
                {},
                {"nodelay": False, "keepalive": False},
                {"nodelay": True, "keepalive": True},
            ]
            for changes in steps:
                await listener.set_options(tcp=changes)
                async with await connect_stream(listener) as client:
                    assert await is_refused(client)
    assert [(bool(nodelay), bool(keepalive)) for nodelay, keepalive in seen] == [
        (True, True),
        (False, False),
        (True, True),
    ]


async def test_what_takes_new_sockets_opens_them_when_allowed_and_keeps_connections() -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", steady_address(), echo) as listener,
            await connect_stream(listener) as first,
        ):
            await ask(first)
            port = listener.port
            await listener.set_options(reopen=True, tcp={"reuse_port": True})
            assert listener.port == port
            raw = listener._intake._sockets.sockets[0]  # type: ignore[union-attr]
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            async with await connect_stream(listener) as second:
                assert await ask(second) == await ask(first) == b"hello"


async def test_a_reopening_that_fails_leaves_the_old_options_and_can_be_tried_again(monkeypatch: Any) -> None:
    async def taken(*_: Any) -> Any:
        raise AddressInUse(98, "somebody took it")

    with anyio.fail_after(20):
        async with open_listener("echo", steady_address(), echo) as listener:
            monkeypatch.setattr(listener._intake, "_opener", taken)
            with pytest.raises(AddressInUse):
                await listener.set_options(reopen=True, tcp={"reuse_port": True})
            monkeypatch.undo()
            assert not listener.options.tcp.reuse_port
            assert listener.state == "suspended"
            await listener.set_options(max_connections=7)
            await listener.reopen()
            await listener.resume()
            async with await connect_stream(listener) as client:
                assert await ask(client) == b"hello"


async def test_a_kernel_that_refuses_an_option_leaves_the_old_ones_in_force(monkeypatch: Any) -> None:
    apply = TcpOptions.apply_to_listener

    def refuse(self: TcpOptions, sock: socket.socket) -> None:
        if not self.keepalive:
            raise PermissionError(1, "not you")
        apply(self, sock)

    monkeypatch.setattr(TcpOptions, "apply_to_listener", refuse)
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, acceptors=2) as listener:
            with pytest.raises(CannotBind, match="not you"):
                await listener.set_options(acceptors=3, tcp={"keepalive": False, "backlog": 9})
            assert listener.options.tcp.keepalive
            assert listener.stats().accept_queue_limit == 1024
            assert len(listener.acceptors) == 2
            async with await connect_stream(listener) as client:
                assert await ask(client) == b"hello"


async def test_open_connections_feel_a_new_idle_timeout(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, await connect_stream(listener) as client:
            await ask(client)
            await listener.set_options(idle_timeout=0.2)
            assert await is_refused(client)
            await until(lambda: listener.stats().shutdown_counts == {"idle_timeout": 1})


async def test_options_of_a_suspended_listener_change_and_it_stays_suspended() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            await listener.suspend()
            await listener.set_options(acceptors=3, tcp={"backlog": 7})
            assert listener.state == "suspended"
            async with await connect_stream(listener) as client:
                await client.send(b"hello")
                assert listener.stats().accepted == 0
                await listener.resume()
                assert await client.receive() == b"hello"


async def test_a_closed_listener_has_no_options_to_change() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        pass
    with pytest.raises(ListenerClosed):
        await listener.set_options(max_connections=5)


async def test_changes_under_load_lose_no_connection(handler: Handler) -> None:
    rounds, clients = 12, 4
    lost: list[Exception] = []

    async def hammer(listener: Listener, done: anyio.Event) -> None:
        while not done.is_set():
            try:
                async with await connect_stream(listener) as client:
                    assert await ask(client) == b"hello"
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
                lost.append(error)

    done = anyio.Event()
    with anyio.fail_after(40):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, anyio.create_task_group() as group:
            for _ in range(clients):
                group.start_soon(hammer, listener, done)
            for number in range(rounds):
                before = listener.stats().accepted
                await listener.set_options(
                    acceptors=1 + number % 3,
                    max_connections=100 + number,
                    when_full=("close", "backlog")[number % 2],
                    tcp={"backlog": 100 + number, "nodelay": bool(number % 2)},
                    max_conn_rate=(None, "100000/s")[number % 2],
                )
                await until(partial(lambda than: listener.stats().accepted > than, before))
            done.set()
    assert lost == []
    stats = listener.stats()
    assert stats.refused == 0
    assert stats.accepted == sum(stats.shutdown_counts.values())


async def test_a_cancelled_change_leaves_a_listener_that_accepts() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", steady_address(), echo) as listener:
            for tries in range(12):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(_reopen, listener)
                        for _ in range(tries):
                            await checkpoint()
                        scope.cancel()
                if listener.addresses:
                    assert listener.state == "running"
                    async with await connect_stream(listener) as client:
                        assert await ask(client) == b"hello"
                else:
                    await listener.reopen()
                    await listener.resume()


async def _reopen(listener: Listener) -> None:
    await listener.set_options(reopen=True, tcp={"reuse_port": not listener.options.tcp.reuse_port})


@pytest.mark.parametrize(
    "changes",
    [{"access_rules": None}, {"access_rules": 5}, {"limiter": object()}, {"load_hook": 5}, {"acceptors": "x"}],
)
async def test_a_value_of_another_kind_is_an_invalid_option(changes: dict[str, Any]) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with pytest.raises(InvalidOption, match=next(iter(changes))):
            await listener.set_options(**changes)
        with pytest.raises(InvalidOption, match="trusted"):
            await listener.set_options(proxy_protocol={"trusted": 5})  # type: ignore[arg-type]
