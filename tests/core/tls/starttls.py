"""Both sides of TLS in the middle of a callback connection: a handler that agrees to it, and a client by hand."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from tests.core.tls_clients import AUTHORITY
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, Listener, StreamConnection, TlsOptions, open_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


COMMAND = b"STARTTLS\r\n"
GO_AHEAD = b"220 go ahead\r\n"
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


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
    with anyio.fail_after(PATIENCE_S):
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
        self.raw = socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_S)
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
