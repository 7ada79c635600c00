"""TLS in the middle of a connection: no byte is lost, and none in the clear passes for a protected one."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import reasons
from tests.core.tls.starttls import serving
from tests.core.tls_clients import AUTHORITY, dial, run

from esockd_core import CallbackHandler, StreamConnection, TlsOptions, open_listener

pytestmark = pytest.mark.anyio


class Server:
    """Agrees to TLS when asked, then echoes; remembers what it took for protected, and how it ended."""

    def __init__(self, tls: TlsOptions) -> None:
        self.tls = tls
        self.protected = b""
        self.error: Exception | None = None

    async def __call__(self, connection: StreamConnection) -> None:
        command = await connection.receive(10)
        assert command == b"STARTTLS\r\n"
        await connection.send(b"220 go ahead\r\n")
        try:
            await connection.start_tls(self.tls)
        except Exception as error:
            self.error = error
            raise
        assert connection.tls is not None
        assert connection.tls.server_name == "localhost"
        async for data in connection:
            self.protected += data
            await connection.send(data)


def secure(client: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context.wrap_socket(client, server_hostname="localhost", suppress_ragged_eofs=False)


def recv_exactly(client: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := client.recv(size - len(received))):
        received += data
    return bytes(received)


async def test_a_connection_goes_on_with_tls(tls: TlsOptions) -> None:
    def talk() -> bytes:
        raw = dial(listener)
        raw.sendall(b"STARTTLS\r\n")
        assert raw.recv(100) == b"220 go ahead\r\n"
        with secure(raw) as client:
            client.sendall(b"hello")
            answer = client.recv(5)
            client.unwrap().close()
        return answer

    server = Server(tls)
    async with serving(server) as listener:
        assert await run(talk) == b"hello"
        assert await reasons(listener) == {"normal": 1}
        assert listener.stats().handshakes.count == 1
    assert server.protected == b"hello"


@pytest.mark.parametrize("in_one_segment", [True, False])
async def test_a_client_that_does_not_wait_for_the_answer_loses_nothing(tls: TlsOptions, in_one_segment: bool) -> None:
    """Its ClientHello may be in our buffer when TLS starts."""

    def talk() -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with dial(listener) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            hello = outgoing.read()
            if in_one_segment:
                raw.sendall(b"STARTTLS\r\n" + hello)
            else:
                raw.sendall(b"STARTTLS\r\n")
                raw.sendall(hello)
            received = b""
            while b"\r\n" not in received:
                received += raw.recv(65_536)
            answer, _, ciphertext = received.partition(b"\r\n")
            assert answer == b"220 go ahead"
            incoming.write(ciphertext)
            sent = False
            while True:
                try:
                    if not sent:
                        client.do_handshake()
                        client.write(b"hello")
                        sent = True
                    return client.read(5)
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65_536))

    async with serving(Server(tls)) as listener:
        assert await run(talk) == b"hello"


async def test_what_the_handler_received_too_early_is_given_back(tls: TlsOptions) -> None:
    async def greedy(connection: StreamConnection) -> None:
        received = b""
        while len(received) < 100:
            received += await connection.receive()
        await connection.start_tls(tls, received=received.removeprefix(b"STARTTLS\r\n"))
        await connection.send(b"220 protected")

    def talk() -> bytes:
        raw = dial(listener)
        raw.sendall(b"STARTTLS\r\n")
        with secure(raw) as client:
            return client.recv(100)

    async with serving(greedy) as listener:
        assert await run(talk) == b"220 protected"


async def test_a_command_injected_behind_starttls_is_never_taken_for_a_protected_one(tls: TlsOptions) -> None:
    """The plaintext command injection of CVE-2011-0411: here it breaks the handshake."""

    def inject() -> bytes:
        raw = dial(listener)
        raw.sendall(b"STARTTLS\r\nRCPT TO:<attacker@example.org>\r\n")
        assert recv_exactly(raw, 14) == b"220 go ahead\r\n"
        with pytest.raises((ssl.SSLError, ConnectionError)), secure(raw):
            pass
        raw.close()
        return b"refused"

    server = Server(tls)
    async with serving(server) as listener:
        assert await run(inject) == b"refused"
        assert await reasons(listener) == {"tls_failed": 1}
    assert server.protected == b""
    assert isinstance(server.error, anyio.BrokenResourceError)


async def test_a_client_that_stalls_in_the_handshake_is_closed_by_its_deadline(tls: TlsOptions) -> None:
    server = Server(tls)
    async with serving(server, handshake_timeout=0.2) as listener:
        with await run(lambda: dial(listener)) as client:
            client.sendall(b"STARTTLS\r\n\x16\x03\x01")
            assert await reasons(listener) == {"handshake_timeout": 1}
    assert isinstance(server.error, anyio.BrokenResourceError)


async def test_a_cancelled_start_closes_the_connection(tls: TlsOptions) -> None:
    async def give_up(connection: StreamConnection) -> None:
        await connection.receive()
        with anyio.move_on_after(0.1):
            await connection.start_tls(tls)
        assert connection.state != "open"

    def talk() -> bytes:
        with dial(listener) as client:
            client.sendall(b"STARTTLS\r\n")
            with suppress(ConnectionResetError):
                return client.recv(100)
        return b""

    async with serving(give_up) as listener:
        assert await run(talk) == b""
        assert await reasons(listener) == {"aborted": 1}


async def test_large_output_in_the_clear_is_sent_whole_before_tls(tls: TlsOptions) -> None:
    size = 3_000_000

    async def pour(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(size))
        await connection.start_tls(tls)
        await connection.send(b"protected")

    def talk() -> bytes:
        raw = dial(listener)
        assert recv_exactly(raw, size) == bytes(size)
        with secure(raw) as client:
            return client.recv(100)

    async with serving(pour) as listener:
        assert await run(talk) == b"protected"


async def test_tls_starts_once(tls: TlsOptions) -> None:
    errors: list[Exception] = []

    async def twice(connection: StreamConnection) -> None:
        try:
            await connection.start_tls(tls)
        except RuntimeError as error:
            errors.append(error)
        await connection.send(b"done")

    def talk() -> bytes:
        with secure(dial(listener)) as client:
            return client.recv(100)

    with anyio.fail_after(20):
        async with open_listener("tls", "tls://127.0.0.1:0", twice, tls=tls) as listener:
            assert await run(talk) == b"done"
    assert "has TLS already" in str(errors[0])


async def test_a_start_that_comes_too_late_loses_nothing(tls: TlsOptions) -> None:
    async def twice(connection: StreamConnection) -> None:
        first = await connection.receive(1)  # the rest waits
        with pytest.raises(RuntimeError, match="has TLS already"):
            await connection.start_tls(tls)
        await connection.send(first + await connection.receive())

    def talk() -> bytes:
        with secure(dial(listener)) as client:
            client.sendall(b"hello")
            return client.recv(100)

    with anyio.fail_after(20):
        async with open_listener("tls", "tls://127.0.0.1:0", twice, tls=tls) as listener:
            assert await run(talk) == b"hello"


async def test_nobody_may_be_receiving_when_tls_starts(tls: TlsOptions) -> None:
    errors: list[Exception] = []

    async def both(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(connection.receive)
            await anyio.sleep(0.01)
            try:
                await connection.start_tls(tls)
            except anyio.BusyResourceError as error:
                errors.append(error)
            task_group.cancel_scope.cancel()

    async with serving(both) as listener:
        with await run(lambda: dial(listener)) as client:
            await run(lambda: client.recv(1))
    assert len(errors) == 1


async def test_a_client_that_closes_when_it_should_shake_hands_has_failed(tls: TlsOptions) -> None:
    """It has asked for TLS: this is no port check."""

    def leave() -> None:
        with dial(listener) as client:
            client.sendall(b"STARTTLS\r\n")
            client.shutdown(socket.SHUT_WR)
            while client.recv(100):
                pass

    server = Server(tls)
    async with serving(server, handshake_timeout=15) as listener:
        await run(leave)
        assert await reasons(listener) == {"tls_failed": 1}
    assert isinstance(server.error, anyio.BrokenResourceError)


async def test_what_another_task_sends_meanwhile_is_encrypted(tls: TlsOptions) -> None:
    async def both(connection: StreamConnection) -> None:
        await connection.receive(10)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(connection.start_tls, tls)
            await anyio.sleep(0.01)
            await connection.send(b"secret")
        await connection.receive()

    def talk() -> bytes:
        raw = dial(listener)
        raw.sendall(b"STARTTLS\r\n")
        with secure(raw) as client:
            client.sendall(b"!")
            return client.recv(100)

    async with serving(both) as listener:
        assert await run(talk) == b"secret"


async def test_a_sender_that_waits_for_the_handshake_learns_that_it_failed(tls: TlsOptions) -> None:
    errors: list[Exception] = []

    async def pour(connection: StreamConnection) -> None:
        await anyio.sleep(0.01)
        try:
            while True:
                await connection.send(bytes(1_000))
        except anyio.BrokenResourceError as error:
            errors.append(error)

    async def both(connection: StreamConnection) -> None:
        await connection.receive(10)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(pour, connection)
            with suppress(anyio.BrokenResourceError):
                await connection.start_tls(tls)

    def stall() -> bytes:
        with dial(listener) as client:
            client.sendall(b"STARTTLS\r\n")
            with suppress(ConnectionResetError):
                return client.recv(100)
        return b""

    async with serving(both, handshake_timeout=0.3, write_buffer_bytes=5_000) as listener:
        assert await run(stall) == b""
        assert await reasons(listener) == {"handshake_timeout": 1}
    assert len(errors) == 1


async def test_bytes_taken_for_the_beginning_of_a_header_are_not_dropped_where_tls_starts(tls: TlsOptions) -> None:
    """What the client sent in the clear and nobody received breaks the handshake, wherever it was kept."""

    async def take_one(connection: StreamConnection) -> None:
        assert await connection.receive(1) == b"P"
        await connection.start_tls(tls)

    async with serving(take_one, proxy_protocol="use", linger_timeout=0.1) as listener:
        with await run(lambda: dial(listener)) as client:
            client.sendall(b"PR")
            while not listener.stats().entering:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
            await anyio.sleep(0.01)  # the two bytes are taken, or come with the others: both must do
            client.sendall(b"OTECT\r\n")
            assert await reasons(listener) == {"tls_failed": 1}


async def test_callback_handlers_are_told_that_it_is_not_for_them(tls: TlsOptions) -> None:
    errors: list[Exception] = []

    class Callbacks(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            try:
                connection.start_tls(tls).send(None)
            except RuntimeError as error:
                errors.append(error)
            connection.close_nowait()

    async with serving(Callbacks()) as listener:
        with await run(lambda: dial(listener)) as client:
            await run(lambda: client.recv(1))
    assert "coroutine handlers" in str(errors[0])
