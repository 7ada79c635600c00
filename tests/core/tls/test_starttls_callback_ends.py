"""TLS in the middle of a callback connection that ends meanwhile: by the client, the handler or the listener."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import reasons, until
from tests.core.tls.starttls import COMMAND, GO_AHEAD, Client, Server, serving
from tests.core.tls_clients import run

if TYPE_CHECKING:
    from esockd_core import StreamConnection, TlsOptions

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_a_client_that_stalls_in_the_handshake_is_closed_by_its_deadline(tls: TlsOptions, sent: bytes) -> None:
    def stall() -> bytes:
        with Client(listener) as client:
            client.ask().raw.sendall(sent)
            return client.rest()

    server = Server(tls)
    async with serving(server, handshake_timeout=0.2) as listener:
        assert await run(stall) == b""
        assert await reasons(listener) == {"handshake_timeout": 1}
        assert listener.stats().entering == 0
    assert server.told == ["agreed", "connection_lost"]
    assert "handshake_timeout" in str(server.error)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_a_client_that_closes_in_the_handshake_has_failed(tls: TlsOptions, sent: bytes) -> None:
    """This is no port check: it has asked for TLS."""

    def leave() -> None:
        with Client(listener) as client:
            client.ask().raw.sendall(sent)

    server = Server(tls)
    async with serving(server) as listener:
        await run(leave)
        assert await reasons(listener) == {"tls_failed": 1}
    assert server.told == ["agreed", "connection_lost"]
    assert server.error is not None


async def test_a_drain_meanwhile_closes_and_sends_nothing_in_the_clear(tls: TlsOptions) -> None:
    def stall() -> bytes:
        with Client(listener) as client:
            client.ask().raw.sendall(client.hello()[:50])
            return client.rest()

    server = Server(tls)
    async with serving(server) as listener, anyio.create_task_group() as task_group:
        left: list[bytes] = []

        async def note() -> None:
            left.append(await run(stall))

        task_group.start_soon(note)
        await until(lambda: "agreed" in server.told)
        assert server.connection is not None
        await until(lambda: server.connection and server.connection.bytes_in > 0)
        await listener.close()
        assert listener.stats().shutdown_counts == {"shutdown": 1}
    assert left == [b""]
    assert server.told == ["agreed", "connection_lost"]


async def test_a_last_word_at_a_drain_is_encrypted_when_the_handshake_goes_on(tls: TlsOptions) -> None:
    class Polite(Server):
        def drain_requested(self, connection: StreamConnection) -> None:
            connection.send_nowait(b"421 closing\r\n")

        def tls_started(self, connection: StreamConnection) -> None:
            super().tls_started(connection)
            if connection.draining:
                connection.close_nowait("shutdown")

    server = Polite(tls)
    async with serving(server, shutdown_timeout=10) as listener, anyio.create_task_group() as task_group:
        with await run(lambda: Client(listener).ask()) as client:
            task_group.start_soon(listener.close)
            await until(lambda: server.connection and server.connection.bytes_out > len(GO_AHEAD))
            assert await run(lambda: client.shake().read(100)) == b"421 closing\r\n"
        assert await reasons(listener) == {"shutdown": 1}


async def test_a_close_meanwhile_throws_away_what_was_kept(tls: TlsOptions) -> None:
    class Leaving(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            connection.send_nowait(b"secret")
            connection.close_nowait("had enough")
            with pytest.raises(anyio.ClosedResourceError):
                connection.send_nowait(b"secret")

    def talk() -> bytes:
        with Client(listener) as client:
            client.ask().raw.sendall(client.hello())
            client.raw.shutdown(socket.SHUT_WR)
            return client.rest()

    server = Leaving(tls)
    async with serving(server) as listener:
        assert b"secret" not in await run(talk)
        assert await reasons(listener) == {"had enough": 1}
    assert server.told == ["agreed", "connection_lost"]
    assert server.error is None


async def test_what_was_kept_does_not_hold_a_closing_connection(tls: TlsOptions) -> None:
    """It will never be sent: so the peer has the time to finish, and not that for taking it."""

    class Leaving(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            connection.send_nowait(b"secret")
            connection.close_nowait("had enough")

    server = Leaving(tls)
    async with serving(server, linger_timeout=0.2, send_timeout=None, handshake_timeout=60) as listener:
        with await run(lambda: Client(listener).ask()) as client:
            assert await reasons(listener) == {"had enough": 1}
            assert await run(client.rest) == b""


@pytest.mark.parametrize("how", ["abort", "kill"])
async def test_an_abort_meanwhile_ends_the_connection_at_once(tls: TlsOptions, how: str) -> None:
    server = Server(tls)
    async with serving(server) as listener:
        with await run(lambda: Client(listener).ask()) as client:
            await until(lambda: "agreed" in server.told)
            assert server.connection is not None
            if how == "abort":
                server.connection.abort("enough")
            else:
                await listener.kill()
            assert await run(client.rest) == b""
            assert await reasons(listener) == {"enough" if how == "abort" else "shutdown": 1}
            assert listener.stats().entering == 0
    assert server.told == ["agreed", "connection_lost"]


async def test_what_tls_started_raises_ends_the_connection(tls: TlsOptions, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Server):
        def tls_started(self, connection: StreamConnection) -> None:
            raise ValueError(f"no use for {connection}")

    def talk() -> bytes:
        with Client(listener) as client:
            return client.ask().shake(behind=b"hello").read(5)

    server = Broken(tls)
    async with serving(server) as listener:
        assert await run(talk) == b""
        assert await reasons(listener) == {"handler_error": 1}
    assert "no use for" in caplog.text
    assert server.told == ["agreed", "connection_lost"]


async def test_a_closed_connection_starts_no_tls(tls: TlsOptions) -> None:
    class Late(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            connection.close_nowait()
            with pytest.raises(anyio.ClosedResourceError):
                connection.start_tls_nowait(self.tls, received)
            self.told.append("late")

    def talk() -> bytes:
        with Client(listener, before=COMMAND) as client:
            return client.rest()

    server = Late(tls)
    async with serving(server) as listener:
        assert await run(talk) == b""
        assert await reasons(listener) == {"normal": 1}
    assert server.told == ["late", "connection_lost"]
