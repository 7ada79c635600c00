"""TLS in the middle of a callback connection: told of once it is there, and nothing in the clear from its beginning."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import reasons, until
from tests.core.tls.starttls import COMMAND, GO_AHEAD, VERSIONS, Client, Server, serving
from tests.core.tls_clients import run
from trio.lowlevel import wait_readable

from esockd_core._loops.trio import handshaking
from esockd_core._loops.trio.stream import TrioStream
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    import socket

    from esockd_core import StreamConnection, TlsOptions

pytestmark = pytest.mark.anyio


@VERSIONS
@pytest.mark.parametrize("piece", [1, 65_536])
async def test_a_connection_goes_on_with_tls(tls: TlsOptions, version: ssl.TLSVersion, piece: int) -> None:
    def talk() -> bytes:
        with Client(listener, version) as client:
            answer = client.ask().shake(piece).say(b"hello").read(5)
            with suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            client.flush()
            client.rest()
            return answer

    server = Server(tls)
    async with serving(server) as listener:
        assert await run(talk) == b"hello"
        assert await reasons(listener) == {"normal": 1}
        assert listener.stats().handshakes.count == 1
        assert listener.stats().entering == 0
    assert server.told == ["agreed", "tls_started", "connection_lost"]
    assert (server.protected, server.error) == (b"hello", None)


async def test_the_beginning_of_the_handshake_may_have_come_with_the_command(tls: TlsOptions) -> None:
    def talk() -> bytes:
        with Client(listener) as client:
            client.raw.sendall(COMMAND + client.hello())
            return client.take_clear().shake().say(b"hello").read(5)

    async with serving(Server(tls)) as listener:
        assert await run(talk) == b"hello"


@VERSIONS
async def test_data_behind_the_last_message_of_the_handshake_comes_after_tls_started(
    tls: TlsOptions, version: ssl.TLSVersion
) -> None:
    def talk() -> bytes:
        with Client(listener, version) as client:
            return client.ask().shake(behind=b"at once").read(7)

    server = Server(tls)
    async with serving(server) as listener:
        assert await run(talk) == b"at once"
    assert server.told[:2] == ["agreed", "tls_started"]


async def test_a_command_injected_behind_starttls_is_never_taken_for_a_protected_one(tls: TlsOptions) -> None:
    """The plaintext command injection of CVE-2011-0411: here it breaks the handshake."""

    def inject() -> bytes:
        with Client(listener) as client:
            client.raw.sendall(COMMAND + b"RCPT TO:<attacker@example.org>\r\n")
            client.take_clear()
            return client.rest()

    server = Server(tls)
    async with serving(server) as listener:
        assert (await run(inject))[:1] in (b"", b"\x15")  # an alert, or just the end
        assert await reasons(listener) == {"tls_failed": 1}
    assert server.told == ["agreed", "connection_lost"]
    assert server.protected == b""
    assert isinstance(server.error, ConnectionAbortedError)
    assert "TLS handshake" in str(server.error)


async def test_what_is_sent_before_the_end_of_the_handshake_is_kept_and_encrypted(tls: TlsOptions) -> None:
    class Eager(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            connection.send_nowait(b"too early, ")

        def tls_started(self, connection: StreamConnection) -> None:
            super().tls_started(connection)
            connection.send_nowait(b"in time")

    def talk() -> tuple[bytes, bytes]:
        with Client(listener) as client:
            client.ask().shake(behind=b"!")
            return client.in_the_clear, client.read(19)

    async with serving(Eager(tls)) as listener:
        assert await run(talk) == (GO_AHEAD, b"too early, in time!")


async def test_no_more_is_kept_than_the_limit_allows(tls: TlsOptions) -> None:
    class Eager(Server):
        kept = 0

        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            with suppress(anyio.WouldBlock):
                while self.kept < 100_000:
                    connection.send_nowait(bytes(1_000))
                    self.kept += 1_000

        def pause_writing(self, connection: StreamConnection) -> None:
            self.told.append("pause_writing")
            super().pause_writing(connection)

        def resume_writing(self, connection: StreamConnection) -> None:
            self.told.append("resume_writing")
            super().resume_writing(connection)

    def talk() -> bytes:
        with Client(listener) as client:
            return client.ask().shake(behind=b"!").read(server.kept + 1)

    server = Eager(tls)
    async with serving(server, write_buffer_bytes=10_000, write_limit_bytes=20_000) as listener:
        assert await run(talk) == bytes(server.kept) + b"!"
    assert server.kept == 20_000
    assert server.told.count("pause_writing") == server.told.count("resume_writing") == 1
    assert server.told[:4] == ["agreed", "pause_writing", "tls_started", "resume_writing"]


async def test_large_output_in_the_clear_is_sent_whole_before_tls(tls: TlsOptions) -> None:
    size = 3_000_000

    class Pouring(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            connection.send_nowait(bytes(size))
            super().agree(connection, received)

    def talk() -> tuple[bytes, bytes]:
        with Client(listener) as client:
            client.ask(size + len(GO_AHEAD)).shake().say(b"hello")
            return client.in_the_clear, client.read(5)

    async with serving(Pouring(tls), write_limit_bytes=size * 2) as listener:
        assert await run(talk) == (bytes(size) + GO_AHEAD, b"hello")


async def test_a_paused_handler_shakes_hands_and_gets_its_data_when_it_resumes(tls: TlsOptions) -> None:
    class Pausing(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            connection.pause_reading()

    server = Pausing(tls)
    async with serving(server) as listener:
        with await run(lambda: Client(listener).ask().shake(behind=b"hel")) as client:
            await until(lambda: "tls_started" in server.told)
            await run(lambda: client.say(b"lo"))
            await anyio.sleep(0.05)
            assert server.protected == b""
            assert server.connection is not None
            server.connection.resume_reading()
            assert await run(lambda: client.read(5)) == b"hello"


async def test_a_handler_may_pause_and_resume_as_it_likes_meanwhile(tls: TlsOptions) -> None:
    """Not a byte of the handshake is taken for data."""

    class Fidgety(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            self.fidget(connection)

        def tls_started(self, connection: StreamConnection) -> None:
            super().tls_started(connection)
            self.fidget(connection)

        @staticmethod
        def fidget(connection: StreamConnection) -> None:
            for _ in range(2):
                connection.pause_reading()
                connection.resume_reading()

    def talk() -> bytes:
        with Client(listener) as client:
            return client.ask().shake(piece=1, behind=b"hel").say(b"lo").read(5)

    server = Fidgety(tls)
    async with serving(server) as listener:
        assert await run(talk) == b"hello"
    assert server.told[:2] == ["agreed", "tls_started"]


async def test_tls_starts_once(tls: TlsOptions) -> None:
    class Twice(Server):
        def agree(self, connection: StreamConnection, received: bytes) -> None:
            super().agree(connection, received)
            with pytest.raises(RuntimeError, match="has TLS already"):
                connection.start_tls_nowait(self.tls)

        def tls_started(self, connection: StreamConnection) -> None:
            super().tls_started(connection)
            with pytest.raises(RuntimeError, match="has TLS already"):
                connection.start_tls_nowait(self.tls)

    def talk() -> bytes:
        with Client(listener) as client:
            return client.ask().shake().say(b"hello").read(5)

    async with serving(Twice(tls)) as listener:
        assert await run(talk) == b"hello"


@pytest.mark.parametrize(
    "before", [b"", encode(ProxyHeader(source=Endpoint("192.0.2.7", 1), destination=Endpoint("192.0.2.1", 443)))]
)
async def test_tls_may_start_before_anything_else(tls: TlsOptions, before: bytes) -> None:
    """Not a byte behind a PROXY header is taken for data."""

    class AtOnce(Server):
        def connection_made(self, connection: StreamConnection) -> None:
            self.told.append(str(connection.peername[0]))
            connection.start_tls_nowait(self.tls)

    def talk() -> bytes:
        with Client(listener) as client:
            client.raw.sendall(before + client.hello())
            return client.shake().say(b"hello").read(5)

    server = AtOnce(tls)
    async with serving(server, proxy_protocol=bool(before)) as listener:
        assert await run(talk) == b"hello"
    assert server.told[:2] == ["192.0.2.7" if before else "127.0.0.1", "tls_started"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_delivery_that_was_due_before_tls_began_takes_nothing_of_the_handshake(
    tls: TlsOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came behind a PROXY header is delivered in a later turn, which may come after the client's answer."""

    class AtOnce(Server):
        def connection_made(self, connection: StreamConnection) -> None:
            connection.start_tls_nowait(self.tls)

    due: list[TrioStream] = []

    async def postpone(self: TrioStream) -> None:
        if self._engine is None:
            due.append(self)
        else:  # what came behind the handshake
            await deliver_later(self)

    async def wait_for_the_answer(raw: socket.socket) -> None:
        await wait_readable(raw)
        while due:
            await deliver_later(due.pop())

    deliver_later = TrioStream._deliver_later
    monkeypatch.setattr(TrioStream, "_deliver_later", postpone)
    monkeypatch.setattr(handshaking, "wait_readable", wait_for_the_answer)

    def talk() -> bytes:
        with Client(listener) as client:
            client.raw.sendall(header + client.hello())
            return client.shake().say(b"hello").read(5)

    header = encode(ProxyHeader(source=Endpoint("192.0.2.7", 1), destination=Endpoint("192.0.2.1", 443)))
    server = AtOnce(tls)
    async with serving(server, proxy_protocol=True) as listener:
        assert await run(talk) == b"hello"
    assert server.told == ["tls_started", "connection_lost"]


async def test_coroutine_handlers_are_told_to_wait_for_it(tls: TlsOptions) -> None:
    errors: list[str] = []

    async def handle(connection: StreamConnection) -> None:
        try:
            connection.start_tls_nowait(tls)
        except RuntimeError as error:
            errors.append(str(error))

    async with serving(handle) as listener:
        with await run(lambda: Client(listener)) as client:
            assert await run(client.rest) == b""
    assert "await start_tls()" in errors[0]
