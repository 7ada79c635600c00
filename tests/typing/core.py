# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Typed usage of esockd_core: checked by mypy and pyright, never run."""

from __future__ import annotations

from functools import partial
from typing import assert_type

import anyio

from esockd_core import (
    OPTIONS,
    CallbackHandler,
    Connection,
    ConnectionEvent,
    ControlClient,
    ControlServer,
    DatagramConnection,
    Effect,
    Handler,
    InstanceSnapshot,
    InvalidOption,
    Listener,
    ListenerControl,
    ListenerOptions,
    ListenerStatus,
    Option,
    OptionPlan,
    OptionValue,
    PeerName,
    ProxyOptions,
    RehearsalReport,
    Server,
    Stats,
    StreamConnection,
    TcpOptions,
    TlsOptions,
    UnixOptions,
    WorkerStatus,
    merge_options,
    open_listener,
    plan_options,
)
from esockd_core.handlers import ForwardHandler, echo
from esockd_core.workers import SharedControl, WorkerListener, Workers
from esockd_ratelimit import TokenBucket


async def any_connection(connection: Connection) -> None:
    async for data in connection:
        assert_type(data, bytes)
        await connection.send(data)


async def stream(connection: StreamConnection, greeting: bytes) -> None:
    await connection.send(greeting)
    assert_type(await connection.receive(10), bytes)
    assert_type(connection.peername, PeerName)
    await connection.send("text")  # type: ignore[arg-type]


class Echo(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


async def datagrams(connection: DatagramConnection) -> None:
    assert_type(await connection.receive(), bytes)
    assert_type(connection.datagrams_in, int)
    await connection.receive(10)  # type: ignore[call-arg]


class Answer(CallbackHandler[DatagramConnection]):
    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        connection.send_nowait(data)


DATAGRAM_HANDLERS: list[Handler] = [any_connection, datagrams, Answer(), echo]
HANDLERS: list[Handler] = [any_connection, partial(stream, greeting=b"hello"), Echo(), echo, ForwardHandler(6379)]


def note(event: ConnectionEvent) -> None:
    print(event)


async def every_option_is_known_where_a_listener_is_opened() -> None:
    async with open_listener(
        "echo",
        ("127.0.0.1", 0),
        any_connection,
        on_event=note,
        max_connections=None,
        max_conn_rate="100/s",
        limiter=TokenBucket(5),
        access_rules=["deny 10.0.0.1", ("allow", "10.0.0.0/8")],
        when_full="backlog",
        refuse_with=b"busy",
        idle_timeout=1.5,
        proxy_protocol={"trusted": ["10.0.0.0/8"], "header_timeout": 1},
        tls={"certfile": "server.pem", "minimum_version": "1.3"},
        tcp={"backlog": 5, "nodelay": False},
        unix={"mode": 0o600},
        udp={"queue_datagrams": 5},
        dtls={"certfile": "server.pem", "psk": {"sensor": b"key"}, "mtu": 1_200},
    ) as listener:
        assert_type(listener, Listener)
        assert_type(await listener.get_stats(), Stats)
    async with Server() as server:
        options = ListenerOptions(tcp=TcpOptions(backlog=5), proxy_protocol=ProxyOptions(policy="use"))
        assert_type(await server.open("echo", "*:0", Echo(), options, tls=TlsOptions(certfile="x")), Listener)
        await server.open("echo", 0, echo, proxy_protocol=True, send_timeout=None)
        await server.open("echo", 0, echo, max_conections=5)  # type: ignore[call-arg]
        await server.open("echo", 0, echo, max_connections="5")  # type: ignore[arg-type]
        await server.open("echo", 0, echo, when_full="wait")  # type: ignore[arg-type]
        await server.open("echo", 0, echo, tcp={"backlg": 5})  # type: ignore[arg-type]
        await server.open("echo", 0, echo, tcp={"backlog": "5"})  # type: ignore[arg-type]


async def every_option_is_known_where_one_is_changed(control: ListenerControl) -> None:
    assert_type(await control.plan_options(max_connections=5), OptionPlan)
    assert_type(await control.rehearse("deny ::1", duration=60, max_connections=5), RehearsalReport)
    assert_type(await control.get_rehearsal(), RehearsalReport | None)
    assert_type(await control.commit_rehearsal(), RehearsalReport)
    assert_type(await control.cancel_rehearsal(), RehearsalReport)
    await control.set_options(reopen=True, tcp={"reuse_port": True}, access_rules=["deny all"])
    await control.reset_options(idle_timeout=5)
    await control.set_options(idle_timout=5)  # type: ignore[call-arg]


async def a_remote_listener_is_a_control() -> None:
    server = Server()
    async with ControlServer(server, "edge", read_only=UnixOptions(mode=0o660)) as control, server:
        assert_type(control.name, str)
    async with ControlClient("edge", read_only=True) as client:
        assert_type(client.listener("echo", "127.0.0.1:5000"), ListenerControl)
        assert_type(await client.listeners(), tuple[ListenerStatus, ...])
        assert_type((await client.listener("echo").get_options())["tcp.backlog"], OptionValue)
        async with client.watch(0.5) as snapshots:
            async for snapshot in snapshots:
                assert_type(snapshot, InstanceSnapshot)
                assert_type(snapshot.listeners[0].stats.accepted, int)
    ControlServer("echo")  # type: ignore[arg-type]


async def workers_are_controlled_as_one_program() -> None:
    listener = WorkerListener(name="echo", address=5000, handler="app:handle", options=ListenerOptions(max_age=60))
    async with Workers([listener], count=2, loop="uvloop") as workers, ControlServer(workers, "edge"):
        assert_type(workers.listeners(), tuple[SharedControl, ...])
        assert_type(await workers.open(listener, suspended=True), SharedControl)
        assert_type(await workers.change(listener), tuple[OptionPlan, ...])
        with workers.staying():
            control: ListenerControl = workers.listeners()[0]
            await control.close()
        assert_type(workers.workers(), tuple[WorkerStatus, ...])
        assert_type(workers.count, int)
        await workers.restart()
    WorkerListener(name="echo", address=5000, handler=any_connection)  # type: ignore[arg-type]
    Workers([listener], loop="curio")  # type: ignore[arg-type]


def options_are_described_by_a_table() -> None:
    assert_type(OPTIONS["tcp.backlog"], Option)
    assert_type(OPTIONS["tcp.backlog"].effect, Effect)
    assert_type(merge_options(None, {"max_connections": 5}), ListenerOptions)
    assert_type(plan_options(ListenerOptions(), ListenerOptions()), OptionPlan)
    try:
        OPTIONS["tcp.backlog"].kind.parse("tcp.backlog", "many")
    except InvalidOption as error:
        assert_type(error.option, str | None)
        assert_type(error.hint, str | None)


anyio.run(every_option_is_known_where_a_listener_is_opened)
