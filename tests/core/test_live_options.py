"""Options that change under open connections: validated first, all or nothing, and nobody is lost."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute, TLSStream
from tests.core.conftest import echo, until

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
    TlsOptions,
    open_listener,
)
from esockd_proxyproto import Endpoint, ProxyHeader, encode
from esockd_ratelimit import TokenBucket

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import SocketStream

    from esockd_core import Handler

pytestmark = pytest.mark.anyio

HEADER = encode(ProxyHeader(2, source=Endpoint("192.0.2.7", 41000), destination=Endpoint("192.0.2.1", 443)))
AUTHORITY = trustme.CA()


async def name_peer(connection: StreamConnection) -> None:
    await connection.send(connection.peername[0].encode())


async def connect(listener: Listener, source: str = "127.0.0.1") -> SocketStream:
    assert listener.port is not None
    return await anyio.connect_tcp("127.0.0.1", listener.port, local_host=source)


async def ask(client: SocketStream, question: bytes = b"hello") -> bytes:
    await client.send(question)
    return await client.receive()


async def is_refused(client: SocketStream) -> bool:
    try:
        await client.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return True
    return False


async def test_options_change_while_connections_stay_open(handler: Handler) -> None:
    """esockd's t_update_options, where the backlog could not change."""
    tcp = TcpOptions(backlog=128)
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, acceptors=4, tcp=tcp) as listener,
            await connect(listener) as first,
        ):
            assert await ask(first) == b"hello"
            plan = await listener.set_options(acceptors=8, tcp={"backlog": 256, "tune_buffer": True})
            assert {change.name for change in plan.changes} == {"acceptors", "tcp.backlog", "tcp.tune_buffer"}
            assert len(await listener.get_acceptors()) == 8
            assert listener.stats().accept_queue_limit == 256
            assert (await listener.get_options()).tcp == TcpOptions(backlog=256, tune_buffer=True)
            async with await connect(listener) as second:
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
            open_listener("echo", "127.0.0.1:0", handler, acceptors=4) as listener,
            await connect(listener) as first,
        ):
            before = listener.options
            for changes, message in bad:
                with pytest.raises(InvalidOption, match=message):
                    await listener.set_options(**changes)
                assert listener.options is before
            assert len(listener.acceptors) == 4
            async with await connect(listener) as second:
                assert await ask(first) == await ask(second) == b"hello"


async def test_max_connections_can_be_read_and_set(handler: Handler) -> None:
    """esockd's t_get_set_max_connections, whose setting replaced all other options."""
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, max_connections=4, idle_timeout=60) as listener,
            await connect(listener) as first,
        ):
            assert (await listener.get_options()).max_connections == 4
            await ask(first)
            await listener.set_options(max_connections=1)
            assert listener.options.max_connections == listener.stats().max_connections == 1
            assert listener.options.idle_timeout == 60
            async with await connect(listener) as second:
                assert await is_refused(second)
            await listener.set_options(max_connections=2)
            async with await connect(listener) as third:
                assert await ask(third) == await ask(first) == b"hello"


async def test_max_connections_beyond_the_open_file_limit_are_bounded_by_it() -> None:
    """esockd's t_get_set_invalid_max_connections."""
    async with open_listener("echo", "127.0.0.1:0", echo, max_connections=None) as listener:
        most = listener.options.max_connections
        assert most is not None
        await listener.set_options(max_connections=2)
        await listener.set_options(max_connections=most + 1)
        assert listener.options.max_connections == most
        await listener.set_options(max_connections=None)
        assert listener.options.max_connections == most


async def test_max_conn_rate_can_be_read_and_set() -> None:
    """esockd's t_get_set_max_conn_rate and t_update_options_limiter."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate="1/h") as listener:
            assert listener.options.max_conn_rate == "1/h"
            async with await connect(listener) as first, await connect(listener) as second:
                assert await ask(first) == b"hello"
                assert await is_refused(second)
            await listener.set_options(max_conn_rate="1000/s")
            await until(lambda: listener._admission.wait_time_s() == 0)
            async with await connect(listener) as third:
                assert await ask(third) == b"hello"
            await listener.set_options(max_conn_rate=None)
            assert listener._admission.limiter is None


async def test_a_bucket_keeps_its_state_when_other_options_or_its_rate_change() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, max_conn_rate="1/h", max_conn_rate_per_source="1/h"
    ) as listener:
        admission = listener._admission
        common, by_source = admission.limiter, admission.source_limiter
        assert common is not None
        assert by_source is not None
        assert common.try_acquire()
        assert by_source.try_acquire("192.0.2.1")
        await listener.set_options(max_connections=5)
        await listener.set_options(max_conn_rate="2/h", max_conn_rate_per_source="2/h")
        assert (admission.limiter, admission.source_limiter) == (common, by_source)
        assert not common.try_acquire()
        assert not by_source.try_acquire("192.0.2.1")
        await listener.set_options(max_conn_rate_per_source=None)
        assert admission.source_limiter is None


async def test_a_programs_own_limiter_is_taken_and_left_as_it_is() -> None:
    own = TokenBucket(5)
    async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate=1) as listener:
        await listener.set_options(max_conn_rate=None, limiter=own)
        assert listener._admission.limiter is own
        await listener.set_options(max_conn_rate=7, limiter=None)
        assert listener._admission.limiter is not own
        assert own.rate.per_s == 5


async def test_reset_options_puts_all_others_back_to_their_defaults() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, max_connections=5, access_rules=["deny 192.0.2.1"], idle_timeout=3
    ) as listener:
        plan = await listener.reset_options(idle_timeout=4)
        assert {change.name for change in plan.changes} == {"max_connections", "access_rules", "idle_timeout"}
        assert listener.options.max_connections == ListenerOptions().max_connections
        assert listener.options.idle_timeout == 4
        assert await listener.get_access_rules() == ()


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
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, await connect(listener) as first:
            await ask(first)
            listener.set_handler(hey)
            async with await connect(listener) as second:
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
            for changes in ({}, {"nodelay": False, "keepalive": True}, {"nodelay": True, "keepalive": False}):
                await listener.set_options(tcp=changes)
                async with await connect(listener) as client:
                    assert await is_refused(client)
    assert [(bool(nodelay), bool(keepalive)) for nodelay, keepalive in seen] == [
        (True, False),
        (False, True),
        (True, False),
    ]


async def test_what_takes_new_sockets_opens_them_when_allowed_and_keeps_connections() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, await connect(listener) as first:
            await ask(first)
            port = listener.port
            await listener.set_options(reopen=True, tcp={"reuse_port": True})
            assert listener.port == port
            raw = listener._intake._sockets.sockets[0]  # type: ignore[union-attr]
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            async with await connect(listener) as second:
                assert await ask(second) == await ask(first) == b"hello"


async def test_a_reopening_that_fails_leaves_the_old_options_and_can_be_tried_again(monkeypatch: Any) -> None:
    async def taken(*_: Any) -> Any:
        raise AddressInUse(98, "somebody took it")

    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            monkeypatch.setattr("esockd_core._intake.open_sockets", taken)
            with pytest.raises(AddressInUse):
                await listener.set_options(reopen=True, tcp={"reuse_port": True})
            monkeypatch.undo()
            assert not listener.options.tcp.reuse_port
            assert listener.state == "suspended"
            await listener.set_options(max_connections=7)
            await listener.reopen()
            await listener.resume()
            async with await connect(listener) as client:
                assert await ask(client) == b"hello"


async def test_a_kernel_that_refuses_an_option_leaves_the_old_ones_in_force(monkeypatch: Any) -> None:
    apply = TcpOptions.apply_to_listener

    def refuse(self: TcpOptions, sock: socket.socket) -> None:
        if self.keepalive:
            raise PermissionError(1, "not you")
        apply(self, sock)

    monkeypatch.setattr(TcpOptions, "apply_to_listener", refuse)
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, acceptors=2) as listener:
            with pytest.raises(CannotBind, match="not you"):
                await listener.set_options(acceptors=3, tcp={"keepalive": True, "backlog": 9})
            assert not listener.options.tcp.keepalive
            assert listener.stats().accept_queue_limit == 1024
            assert len(listener.acceptors) == 2
            async with await connect(listener) as client:
                assert await ask(client) == b"hello"


async def test_clients_wait_in_the_backlog_from_the_moment_they_are_to(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, max_connections=1) as listener,
            await connect(listener) as first,
        ):
            await ask(first)
            await listener.set_options(when_full="backlog")
            async with await connect(listener) as second:
                await second.send(b"patience")
                await listener.set_options(max_connections=2)  # it wakes who waits for room
                assert await second.receive() == b"patience"
            assert listener.stats().closed_max_limit == 0


async def test_who_waits_for_a_token_is_taken_when_the_rate_rises() -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, max_conn_rate="1/h", when_limited="backlog") as listener,
            await connect(listener) as first,
            await connect(listener) as second,
        ):
            await ask(first)
            await second.send(b"patience")
            await listener.set_options(max_conn_rate="1000/s")
            assert await second.receive() == b"patience"


async def test_a_limit_for_one_source_counts_who_was_open_before_it() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, await connect(listener) as first:
            await ask(first)
            await listener.set_options(max_connections_per_source=1)
            async with await connect(listener) as second, await connect(listener, "127.0.0.2") as other:
                assert await is_refused(second)
                assert await ask(other) == b"hello"
            await first.aclose()
            await until(lambda: not listener.connections)
            assert listener._admission.open_by_source == {}
            async with await connect(listener) as third:
                assert await ask(third) == b"hello"


async def test_the_limit_for_one_source_can_be_lifted_and_set_again_with_exact_counts() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, max_connections_per_source=9) as listener:
            async with await connect(listener) as first, await connect(listener) as second:
                await ask(first)
                await ask(second)
                await listener.set_options(max_connections_per_source=None)
                async with await connect(listener) as third:
                    await ask(third)
                    await listener.set_options(max_connections_per_source=3)
                    assert listener._admission.open_by_source == {"127.0.0.1": 3}
            await until(lambda: not listener.connections)
            assert listener._admission.open_by_source == {}


@pytest.mark.parametrize("limit", [None, 1])
async def test_proxy_headers_can_be_switched_on_and_off(handler: Handler, limit: int | None) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("name", "127.0.0.1:0", handler, max_connections_per_source=limit) as listener,
            await connect(listener) as first,
        ):
            await ask(first)
            listener.set_handler(name_peer)
            await listener.set_options(proxy_protocol=True, trusted=["127.0.0.0/8"])
            async with await connect(listener) as second:
                assert await ask(second, HEADER) == b"192.0.2.7"
            await until(lambda: len(listener.connections) == 1)
            await listener.set_options(proxy_protocol=False, trusted=None)
            async with await connect(listener, "127.0.0.3") as third:
                assert await third.receive() == b"127.0.0.3"
            assert await ask(first) == b"hello"
        assert listener._admission.open_by_source == {}
        assert listener.stats().current_connections == 0


async def test_a_connection_that_waits_for_its_header_goes_on_when_headers_are_switched_off() -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("name", "127.0.0.1:0", name_peer, proxy_protocol=True) as listener,
            await connect(listener) as client,
        ):
            await client.send(HEADER[:9])
            await until(lambda: listener.stats().upgrading == 1)
            await listener.set_options(proxy_protocol=False)
            assert await ask(client, HEADER[9:]) == b"192.0.2.7"


async def test_open_connections_feel_a_new_idle_timeout(handler: Handler) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, await connect(listener) as client:
            await ask(client)
            await listener.set_options(idle_timeout=0.2)
            assert await is_refused(client)
            await until(lambda: listener.stats().shutdown_counts == {"idle_timeout": 1})


async def test_tls_options_change_for_connections_to_come_and_never_turn_into_plaintext(tmp_path: Path) -> None:
    """esockd's t_update_tls_options; its set_max_connections left a TLS listener in plaintext."""
    for name in ("localhost", "changed.example.org"):
        AUTHORITY.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    tls = TlsOptions(certfile=tmp_path / "localhost.pem")
    with anyio.fail_after(20):
        async with open_listener("echo", "tls://127.0.0.1:0", echo, tls=tls) as listener:
            assert await presented(listener) == "localhost"
            await listener.set_options(max_connections=5)
            assert await presented(listener) == "localhost"
            with pytest.raises(InvalidOption, match="no certificate"):
                await listener.set_options(tls={"certfile": __file__})
            with pytest.raises(InvalidOption, match="needs the option tls"):
                await listener.set_options(tls=None)
            with pytest.raises(InvalidOption, match="needs the option tls"):
                await listener.reset_options(max_connections=7)
            assert await presented(listener) == "localhost"
            await listener.set_options(tls={"certfile": tmp_path / "changed.example.org.pem"})
            assert await presented(listener) == "changed.example.org"
            await listener.reset_options(tls=tls)
            assert await presented(listener) == "localhost"


async def test_a_plain_listener_takes_no_tls_option(tmp_path: Path) -> None:
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with pytest.raises(InvalidOption, match="tls://"):
            await listener.set_options(tls=TlsOptions(certfile=tmp_path / "own.pem"))


async def test_certificates_read_again_are_not_forgotten_when_other_options_change(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
    with anyio.fail_after(20):
        async with open_listener("echo", "tls://127.0.0.1:0", echo, tls=TlsOptions(certfile=own)) as listener:
            AUTHORITY.issue_cert("renewed.example.org").private_key_and_cert_chain_pem.write_to_path(str(own))
            listener.set_tls()
            await listener.set_options(proxy_protocol="use")
            assert await presented(listener) == "renewed.example.org"


async def presented(listener: Listener) -> str:
    """The name in the certificate that a client is shown."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.check_hostname = False
    stream = await TLSStream.wrap(await connect(listener), ssl_context=context, hostname="x", standard_compatible=False)
    async with stream:
        certificate: Any = stream.extra(TLSAttribute.peer_certificate)
    return str(certificate["subjectAltName"][0][1])


async def test_options_of_a_suspended_listener_change_and_it_stays_suspended() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            await listener.suspend()
            await listener.set_options(acceptors=3, tcp={"backlog": 7})
            assert listener.state == "suspended"
            async with await connect(listener) as client:
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
                async with await connect(listener) as client:
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


async def test_a_change_of_options_lets_no_source_past_its_limit() -> None:
    """Whoever waits for its header is counted for its client, and not for the proxy, whatever changes meanwhile."""
    options: dict[str, Any] = {"proxy_protocol": True, "max_connections_per_source": 1}
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, **options) as listener,
            await connect(listener) as first,
            await connect(listener) as second,
        ):
            await until(lambda: listener.stats().upgrading == 2)
            await listener.set_options(max_connections=500)
            assert await ask(first, HEADER + b"hello") == b"hello"
            await second.send(HEADER + b"hello")
            assert await is_refused(second)
            assert listener._admission.open_by_source == {"192.0.2.7": 1}
        assert listener._admission.open_by_source == {}


async def test_who_waits_for_its_header_is_judged_though_headers_are_switched_off() -> None:
    rules = ["deny 192.0.2.7"]
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True, access_rules=rules) as listener,
            await connect(listener) as client,
        ):
            await until(lambda: listener.stats().upgrading == 1)
            await listener.set_options(proxy_protocol=False)
            await client.send(HEADER + b"hello")
            assert await is_refused(client)
            await until(lambda: listener.stats().shutdown_counts == {"source_forbidden": 1})


async def test_a_cancelled_change_leaves_a_listener_that_accepts() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            for tries in range(12):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(_reopen, listener)
                        for _ in range(tries):
                            await checkpoint()
                        scope.cancel()
                if listener.addresses:
                    assert listener.state == "running"
                    async with await connect(listener) as client:
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
            await listener.set_options(proxy_protocol=True, trusted=5)
