"""What the tests of esockd-core share: echo handlers in both styles, and clients on loopback."""

from __future__ import annotations

import array
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from tests.core.tls_clients import AUTHORITY
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, ConnectionEvent, Handler, Listener, StreamConnection, TlsOptions, open_listener
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from esockd_core._admission.admission import Admission

HEADER = encode(ProxyHeader(2, source=Endpoint("192.0.2.7", 41000), destination=Endpoint("192.0.2.1", 443)))
MIB = 1 << 20
MORE_THAN_KERNELS_HOLD = 16 * MIB  # tcp_wmem and tcp_rmem together end well below
ASYNCIO_ONLY = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Listener, SocketStream]]]


async def echo(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data)


class Echo(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


@pytest.fixture(params=[echo, Echo()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    """Run the test with an echo handler in both styles."""
    chosen: Handler = request.param
    return chosen


def connect(listener: Listener, source: str | None = None) -> socket.socket:
    """A client in the kernel's queue: the loop need not run for that."""
    assert listener.port is not None
    if source is None:  # binding takes a port that no other connection has: thousands of clients may find none
        client = socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S)
    else:
        host = "::1" if ":" in source else "127.0.0.1"
        client = socket.create_connection((host, listener.port), PATIENCE_S, (source, 0))
    client.setblocking(False)
    return client


async def connect_stream(listener: Listener, source: str = "127.0.0.1") -> SocketStream:
    """A client of AnyIO's."""
    assert listener.port is not None
    return await anyio.connect_tcp("127.0.0.1", listener.port, local_host=source)


async def answer(client: socket.socket, question: bytes = b"hello") -> bytes:
    """What the peer sends until it sent as much as the question, or finished."""
    client.sendall(question)
    answered = b""
    with anyio.fail_after(PATIENCE_S):
        while len(answered) < len(question):
            await anyio.wait_readable(client)
            chunk = client.recv(65_536)
            if not chunk:
                break
            answered += chunk
    return answered


async def rest(client: socket.socket) -> bytes:
    """What the peer still sends until it finishes."""
    received = b""
    with anyio.fail_after(PATIENCE_S):
        while True:
            await anyio.wait_readable(client)
            chunk = client.recv(65_536)
            if not chunk:
                return received
            received += chunk


async def receive_all(stream: SocketStream) -> bytes:
    """What comes on a stream of AnyIO's until its end."""
    return b"".join([data async for data in stream])


def numbered(size: int) -> bytes:
    """Bytes that tell their place: a lost, doubled or swapped one shows."""
    return array.array("I", range(size // 4)).tobytes()


async def settle() -> None:
    """Let every task come to where it waits: `anyio.wait_all_tasks_blocked` may find none of a listener at rest."""
    for _ in range(20):
        await checkpoint()


async def give_up(waiting: Callable[[], Awaitable[object]]) -> None:
    """Start what has to wait, and cancel it once it does."""

    async def wait() -> None:
        await waiting()
        pytest.fail("it did not wait")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await settle()
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event announces."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


def open_by_source(admission: Admission) -> dict[Hashable, int]:
    """The connections of each source that has any, as `max_connections_per_source` counts them."""
    return {key: source.open for key, source in admission.sources._by_key.items() if source.open}


async def reasons(listener: Listener, count: int = 1) -> dict[str, int]:
    """Why connections ended, once so many did."""
    await until(lambda: sum(listener.stats().shutdown_counts.values()) >= count)
    return listener.stats().shutdown_counts


class EventCount:
    """Checks that each connection starts once and stops once."""

    def __enter__(self) -> Self:
        self.events: Counter[tuple[str, int]] = Counter()
        self.reasons: list[str | None] = []
        return self

    def note(self, event: ConnectionEvent) -> None:
        self.events[event.kind, event.connection.id] += 1
        if event.kind == "connection_stopped":
            self.reasons.append(event.reason)

    def __exit__(self, *exc_info: object) -> None:
        assert set(self.events.values()) <= {1}
        kinds = Counter(kind for kind, _ in self.events)
        assert kinds["connection_started"] == kinds["connection_stopped"] > 0


@pytest.fixture
def serve() -> Serve:
    """Give an async context manager: a listener for a handler, and a client of it, both closed within `PATIENCE_S`."""

    @asynccontextmanager
    async def serve(handler: Handler, **options: Any) -> AsyncIterator[tuple[Listener, SocketStream]]:
        with anyio.fail_after(PATIENCE_S):
            async with open_listener("test", "127.0.0.1:0", handler, **options) as listener:
                assert listener.port is not None
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    yield listener, client

    return serve


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PEM files: two servers' certificates with their keys, their authority, and one with a long chain."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("localhost", "other.example.org"):
        issued = AUTHORITY.issue_cert(name, "127.0.0.1" if name == "localhost" else name)
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    chain = (folder / "localhost.pem").read_bytes() + AUTHORITY.cert_pem.bytes() * 60
    (folder / "long-chain.pem").write_bytes(chain)
    return folder


@pytest.fixture
def tls(certificates: Path) -> TlsOptions:
    """TLS as "localhost"."""
    return TlsOptions(certfile=certificates / "localhost.pem")
