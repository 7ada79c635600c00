"""Clients that make work without sending anything: key updates, records without data, hellos in crumbs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import reasons, until
from tests.core.connection.conftest import BOTH_STYLES
from tests.core.connection.strangers import ByHand, hello
from tests.core.connection.takers import dial_slow, take_rest
from tests.core.tls.conftest import encrypted
from tests.core.tls.key_updates import key_update
from tests.core.tls_clients import run

from esockd_core import CallbackHandler, StreamConnection, TlsOptions
from esockd_core._tls.engine import MAX_RECORDS_WITHOUT_DATA, TlsEngine

if TYPE_CHECKING:
    import socket

    from esockd_core import Handler

READ_BYTES = 262_144  # of uvloop


def shaken(tls: TlsOptions) -> tuple[TlsEngine, ByHand]:
    engine, client = TlsEngine(tls.context), ByHand()
    while not engine.handshaken:
        engine.feed(client.step())
        client.incoming.write(engine.take())
    return engine, client


def key_updates(client: ByHand, count: int) -> bytes:
    return b"".join(key_update(client.tls, client.outgoing) for _ in range(count))


def data(client: ByHand, size: int) -> bytes:
    client.tls.write(bytes(size))
    return client.outgoing.read()


def test_as_many_key_updates_in_a_row_as_other_servers_take_are_answered(tls: TlsOptions) -> None:
    engine, client = shaken(tls)
    engine.feed(key_updates(client, MAX_RECORDS_WITHOUT_DATA - 1) + data(client, 5))
    assert engine.error is None
    client.incoming.write(engine.take() + engine.write(b"under new keys"))
    assert client.tls.read(100) == b"under new keys"


def test_more_key_updates_are_a_flood_whether_in_a_row_or_with_a_byte_between_them(tls: TlsOptions) -> None:
    for between in (0, 1):
        engine, client = shaken(tls)
        flood = b""
        while len(flood) < 20_000:
            flood += key_updates(client, 1) + (data(client, between) if between else b"")
        engine.feed(flood)
        assert engine.is_flooded
        assert engine.outgoing.pending < 40 * MAX_RECORDS_WITHOUT_DATA


def test_key_updates_between_much_data_are_none(tls: TlsOptions) -> None:
    engine, client = shaken(tls)
    for _ in range(100):
        assert engine.feed(key_updates(client, 4) + data(client, 4 * 1_024)) == bytes(4 * 1_024)
        engine.take()
    assert engine.error is None


def test_a_hello_in_crumbs_is_a_flood(tls: TlsOptions) -> None:
    engine = TlsEngine(tls.context)
    message = b"\x01\x00\xff\xff" + bytes(60_000)
    engine.feed(b"".join(b"\x16\x03\x01\x00\x01" + message[at : at + 1] for at in range(READ_BYTES // 6)))
    assert engine.is_flooded
    assert engine.error is not None


def test_a_hello_in_single_bytes_is_read(tls: TlsOptions) -> None:
    engine = TlsEngine(tls.context)
    record = hello()
    engine.feed(b"".join(record[:3] + b"\x00\x01" + record[at : at + 1] for at in range(5, len(record))))
    assert engine.error is None
    assert engine.outgoing.pending


def connect_by_hand(listener: Any) -> tuple[socket.socket, ByHand]:
    by_hand = ByHand()
    client = dial_slow(listener)
    client.sendall(by_hand.step())
    client.sendall(by_hand.answer(client))
    return client, by_hand


@pytest.mark.anyio
async def test_a_flood_of_key_updates_ends_its_connection_in_a_reset(handler: Handler, tls: TlsOptions) -> None:
    def flood() -> str:
        client, by_hand = connect_by_hand(listener)
        with suppress(ConnectionError):
            client.sendall(key_updates(by_hand, 5_000))
        return take_rest(client)

    async with encrypted(handler, tls) as listener:
        assert await run(flood) == "reset"
        assert await reasons(listener) == {"reset": 1}
        assert listener.stats().bytes_out == 0


class Kept(CallbackHandler):
    """Takes what comes, and gives its connection away."""

    def __init__(self) -> None:
        self.connections: list[StreamConnection] = []

    def connection_made(self, connection: StreamConnection) -> None:
        self.connections.append(connection)

    async def serve(self, connection: StreamConnection) -> None:
        self.connections.append(connection)
        async for _ in connection:
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_who_takes_no_answers_to_key_updates_is_not_read_from_and_is_cut_in_the_end(
    tls: TlsOptions, style: str
) -> None:
    kept, most = Kept(), 0

    def flood() -> int:
        client, by_hand = connect_by_hand(listener)
        sent = 0
        with client, suppress(ConnectionError):
            while sent < 100_000_000:
                piece = b"".join(key_updates(by_hand, 16) + data(by_hand, 17_000) for _ in range(10))
                client.sendall(piece)
                sent += len(piece)
        return sent

    async def watch() -> None:
        nonlocal most
        await until(lambda: kept.connections)
        while True:
            most = max(most, kept.connections[0].unsent_bytes())  # type: ignore[attr-defined]
            await anyio.sleep(0.01)

    handler = kept if style == "callback" else kept.serve
    options = {"send_timeout": 0.5, "write_buffer_bytes": 2_000, "tcp": {"send_buffer_bytes": 8_192}}
    async with encrypted(handler, tls, **options) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await run(flood)
        assert await reasons(listener) == {"send_timeout": 1}
        tasks.cancel_scope.cancel()
    assert most < 20_000


@pytest.mark.anyio
@BOTH_STYLES
async def test_renegotiation_is_refused(handler: Handler, tls: TlsOptions, require_tool: Any) -> None:
    """By OpenSSL's client: typed at the beginning of a line, R asks for it (openssl-s_client(1))."""
    openssl = require_tool("openssl")
    async with encrypted(handler, tls) as listener:
        address = f"127.0.0.1:{listener.port}"
        arguments = [openssl, "s_client", "-connect", address, "-tls1_2"]
        async with await anyio.open_process(arguments) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            async for told in process.stdout:
                if b"Extended master secret" in told:
                    break
            await process.stdin.send(b"R\n")
            with anyio.fail_after(30):
                said = b"".join([each async for each in process.stderr])  # type: ignore[union-attr]
        assert b"no renegotiation" in said
