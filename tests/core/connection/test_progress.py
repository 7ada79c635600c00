"""What the timeouts of sending and of silence look at: bytes that the peer acknowledged, wherever they waited."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from tests.core.conftest import MIB, MORE_THAN_KERNELS_HOLD, reasons, until
from tests.core.connection.strangers import serving
from tests.core.connection.takers import PIECE_BYTES, dial_slow, take_rest
from tests.core.tls_clients import run
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, Handler, StreamConnection

if TYPE_CHECKING:
    import socket

    from tests.core.connection.conftest import Hands

    from esockd_core import Listener, TlsOptions

pytestmark = pytest.mark.anyio

TIMEOUT_S: Final = 0.6
REPLY = bytes(MIB + 400_000)
# Above what the slow client takes within a timeout: a loop sees room again only when a third of it is free.
SEND_BUFFER = {"send_buffer_bytes": 400_000}
ENCRYPTED = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])


async def reply(connection: StreamConnection) -> None:
    await connection.send(REPLY)


async def reply_and_listen(connection: StreamConnection) -> None:
    connection.send_nowait(REPLY)
    async for _ in connection:
        pass


class Reply(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(REPLY)
        connection.close_nowait()


class ReplyAndListen(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(REPLY)


async def take_slowly(listener: Listener, client: socket.socket, hands: Hands, wanted: int) -> int:
    """Take a little at a time, and let a thirtieth of a timeout pass after each; how much there was."""
    taken = 0
    while taken < wanted:
        data: bytes = await run(lambda: client.recv(PIECE_BYTES))
        if not data:
            break
        taken += len(data)
        await hands.pass_time(listener, TIMEOUT_S / 30)
    return taken


@ENCRYPTED
@pytest.mark.parametrize("handler", [reply, Reply()], ids=["coroutine", "callback"])
async def test_who_takes_a_little_all_the_time_gets_everything_however_long_it_takes(
    handler: Handler, tls: TlsOptions, hands: Hands, *, encrypted: bool
) -> None:
    options: dict[str, Any] = {"send_timeout": TIMEOUT_S, "linger_timeout": TIMEOUT_S, "tcp": SEND_BUFFER}
    async with serving(handler, **options, **({"tls": tls} if encrypted else {})) as listener:
        with await run(lambda: dial_slow(listener, tls=encrypted)) as client:
            assert await take_slowly(listener, client, hands, 2 * len(REPLY)) == len(REPLY)
        assert await reasons(listener) == {"normal": 1}


@ENCRYPTED
@pytest.mark.parametrize("handler", [reply_and_listen, ReplyAndListen()], ids=["coroutine", "callback"])
async def test_who_takes_a_little_all_the_time_is_not_idle(
    handler: Handler, tls: TlsOptions, hands: Hands, *, encrypted: bool
) -> None:
    options = {"tls": tls} if encrypted else {}
    async with serving(handler, idle_timeout=TIMEOUT_S, tcp=SEND_BUFFER, **options) as listener:
        with await run(lambda: dial_slow(listener, tls=encrypted)) as client:
            assert await take_slowly(listener, client, hands, len(REPLY)) == len(REPLY)
            assert listener.stats().current_connections == 1
            for _ in range(3):
                await hands.pass_time(listener, TIMEOUT_S)
            assert await reasons(listener) == {"idle_timeout": 1}


class Kept(CallbackHandler):
    """Gives its connection away."""

    def __init__(self) -> None:
        self.connections: list[StreamConnection] = []

    def connection_made(self, connection: StreamConnection) -> None:
        self.connections.append(connection)

    async def serve(self, connection: StreamConnection) -> None:
        self.connections.append(connection)
        async for _ in connection:
            pass


@ENCRYPTED
@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_who_takes_nothing_is_reset_though_its_handler_goes_on_sending(
    tls: TlsOptions, style: str, *, encrypted: bool
) -> None:
    kept = Kept()
    options = {"tls": tls} if encrypted else {}
    handler = kept if style == "callback" else kept.serve
    async with serving(handler, send_timeout=0.4, write_limit_bytes=2 * MORE_THAN_KERNELS_HOLD, **options) as listener:
        client = await run(lambda: dial_slow(listener, tls=encrypted))
        await until(lambda: kept.connections)
        connection = kept.connections[0]
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        with suppress(anyio.BrokenResourceError), anyio.fail_after(PATIENCE_S):
            while True:
                connection.send_nowait(bytes(1_000))
                await anyio.sleep(0.02)
        assert await reasons(listener) == {"send_timeout": 1}
        assert await run(lambda: take_rest(client)) == "reset"


@ENCRYPTED
@pytest.mark.parametrize("style", ["coroutine", "callback"])
@pytest.mark.parametrize("how", ["drain", "kill connection", "abort", "closing"])
async def test_a_stream_that_is_cut_short_ends_in_a_reset(
    tls: TlsOptions, style: str, how: str, *, encrypted: bool
) -> None:
    kept = Kept()
    options = {"tls": tls} if encrypted else {}
    handler = kept if style == "callback" else kept.serve
    async with serving(handler, send_timeout=0.4, linger_timeout=0.2, **options) as listener:
        client = await run(lambda: dial_slow(listener, tls=encrypted))
        await until(lambda: kept.connections)
        connection = kept.connections[0]
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        if how == "drain":
            await listener.drain(0)
        elif how == "kill connection":
            assert await listener.kill_connection(connection.id)
        elif how == "abort":
            connection.abort()
        else:
            connection.close_nowait()
        await reasons(listener)
        assert await run(lambda: take_rest(client)) == "reset"
