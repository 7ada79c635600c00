"""TLS in the middle of a callback connection: told of once it is there, and nothing in the clear from its beginning."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
import pytest
import trustme

from esockd_core import CallbackHandler, Listener, StreamConnection, TlsOptions, open_listener
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
COMMAND = b"STARTTLS\r\n"
GO_AHEAD = b"220 go ahead\r\n"
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsOptions:
    file: Path = tmp_path_factory.mktemp("certificates") / "localhost.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    return TlsOptions(certfile=file)


class Server(CallbackHandler):
    """Agrees to TLS when asked, then echoes; remembers what it was told."""

    def __init__(self, tls: TlsOptions) -> None:
        self.tls = tls
        self.connection: StreamConnection | None = None
        self.told: list[str] = []
        self.protected = b""
        self.error: Exception | None = None

    def connection_made(self, connection: StreamConnection) -> None:
        self.connection = connection

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        if "tls_started" in self.told:
            self.protected += data
            connection.send_nowait(data)
        elif data.startswith(COMMAND):
            self.agree(connection, data.removeprefix(COMMAND))
        else:
            self.told.append(f"took in the clear: {data!r}")

    def agree(self, connection: StreamConnection, received: bytes) -> None:
        connection.send_nowait(GO_AHEAD)
        connection.start_tls_nowait(self.tls, received)
        self.told.append("agreed")

    def tls_started(self, connection: StreamConnection) -> None:
        assert connection.tls is not None
        assert connection.tls.server_name == "localhost"
        self.told.append("tls_started")

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        self.told.append("connection_lost")
        self.error = error


@asynccontextmanager
async def serving(handler: Any, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(20):
        async with open_listener("starttls", "127.0.0.1:0", handler, **options) as listener:
            yield listener


class Client:
    """A blocking client for a thread, which does the handshake by hand: a piece at a time if wanted.

    Attributes:
        in_the_clear: What came before TLS did.
    """

    def __init__(
        self, listener: Listener, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, before: bytes = b""
    ) -> None:
        assert listener.port is not None
        context = ssl.create_default_context()
        context.minimum_version = context.maximum_version = version
        AUTHORITY.configure_trust(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.raw = socket.create_connection(("127.0.0.1", listener.port), timeout=10)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.in_the_clear = b""
        if before:
            self.raw.sendall(before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def hello(self) -> bytes:
        """The first message of the handshake."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def ask(self, size: int = len(GO_AHEAD)) -> Client:
        """Ask for TLS, and take what comes in the clear."""
        self.raw.sendall(COMMAND)
        return self.take_clear(size)

    def take_clear(self, size: int = len(GO_AHEAD)) -> Client:
        """Take what comes in the clear."""
        while len(self.in_the_clear) < size:
            data = self.raw.recv(size - len(self.in_the_clear))
            assert data
            self.in_the_clear += data
        return self

    def shake(self, piece: int = 65_536, behind: bytes = b"") -> Client:
        """Do the handshake, and send something right behind its last message."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush(piece)
                data = self.raw.recv(65_536)
                assert data, "the other side closed in the handshake"
                self.incoming.write(data)
            else:
                if behind:
                    self.tls.write(behind)
                self.flush(piece)
                return self

    def flush(self, piece: int = 65_536) -> None:
        waiting = self.outgoing.read()
        for at in range(0, len(waiting), piece):
            self.raw.sendall(waiting[at : at + piece])

    def say(self, data: bytes) -> Client:
        self.tls.write(data)
        self.flush()
        return self

    def read(self, size: int) -> bytes:
        """What comes under TLS: so much, or up to its end."""
        received = b""
        while len(received) < size:
            try:
                data = self.tls.read(size - len(received))
                if not data:
                    break
                received += data
            except ssl.SSLWantReadError:
                data = self.raw.recv(65_536)
                if not data:
                    break
                self.incoming.write(data)
        return received

    def rest(self) -> bytes:
        """What comes from the socket until it is closed, unread by any TLS."""
        received = b""
        with suppress(ConnectionResetError):
            while data := self.raw.recv(65_536):
                received += data
        return received


async def run(client: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(client, abandon_on_cancel=True)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - a listener tells nobody; `serving` bounds it
        await anyio.sleep(0.01)


async def reasons(listener: Listener) -> dict[str, int]:
    await until(lambda: listener.stats().shutdown_counts)
    return listener.stats().shutdown_counts


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
        assert listener.stats().upgrading == 0
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
        assert listener.stats().upgrading == 0
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
            assert listener.stats().upgrading == 0
    assert server.told == ["agreed", "connection_lost"]


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
