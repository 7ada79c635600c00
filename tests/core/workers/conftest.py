"""What the tests of workers share: two workers on a loopback port, and clients."""

from __future__ import annotations

import socket
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import anyio
import pytest
from tests.patience import PATIENCE_S

from esockd_core import ListenerControl, ListenerOptions, Stats
from esockd_core.workers import WorkerListener, Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PROGRAMS: Final = "tests.core.workers.programs:"
ECHO: Final = PROGRAMS + "echo"


@dataclass(frozen=True)
class Served:
    """Workers with one listener."""

    workers: Workers
    listener: ListenerControl
    port: int
    clients: list[socket.socket] = field(default_factory=list)

    async def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A client; the kernel has accepted it, and perhaps no worker yet."""
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, (source, 0))
        client.setblocking(False)
        self.clients.append(client)
        return client

    def pids(self) -> set[int]:
        """The processes that accept."""
        return {each.pid for each in self.workers.workers() if each.state in ("running", "slow")}

    async def until(self, is_so: Callable[[Stats], bool]) -> Stats:
        """The counters once they are so."""
        while True:
            if is_so(stats := await self.listener.get_stats()):
                return stats
            await anyio.sleep(0.01)


async def eventually(is_so: Callable[[], bool]) -> None:
    """Return once it is so; the time limit of the block bounds that."""
    while not is_so():  # noqa: ASYNC110 (what other processes do sets no event here)
        await anyio.sleep(0.01)


async def ask(client: socket.socket, request: bytes = b"hello") -> bytes:
    """The answer to a request; nothing if the client was refused or reset."""
    try:
        client.send(request)
        await anyio.wait_readable(client)
        return client.recv(100)
    except OSError:
        return b""


async def ask_all(clients: list[socket.socket], request: bytes = b"hello") -> list[bytes]:
    """The answers to many clients."""
    answers: dict[socket.socket, bytes] = {}

    async def one(client: socket.socket) -> None:
        answers[client] = await ask(client, request)

    async with anyio.create_task_group() as task_group:
        for client in clients:
            task_group.start_soon(one, client)
    return [answers[client] for client in clients]


def other(address: str = "127.0.0.1:0", handler: str = "other", *arguments: Any, **options: Any) -> WorkerListener:
    """A second listener."""
    return WorkerListener(
        name="other",
        address=address,
        handler=PROGRAMS + handler,
        handler_arguments=arguments or None,
        options=ListenerOptions(**{"shutdown_timeout": 0.0, **options}),
    )


async def port_of(control: ListenerControl) -> int:
    """Where a listener listens."""
    return (await control.get_status()).port or 0


def connect(port: int) -> socket.socket:
    """A client; the kernel has accepted it, and perhaps no worker yet."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    client.setblocking(False)
    return client


async def ask_anew(port: int, request: bytes = b"hello") -> bytes:
    """The answer to a new client."""
    with connect(port) as client:
        return await ask(client, request)


def open_files(pids: set[int]) -> dict[int, int]:
    """How many files each process has open."""
    return {pid: len([*Path(f"/proc/{pid}/fd").iterdir()]) for pid in pids}


class Serve(Protocol):
    def __call__(
        self,
        *,
        count: int = 2,
        address: str = "127.0.0.1:0",
        handler: str = ECHO,
        options: dict[str, Any] = ...,
        **more: Any,
    ) -> AbstractAsyncContextManager[Served]: ...


@pytest.fixture
def loop(anyio_backend: tuple[str, dict[str, bool]]) -> Literal["asyncio", "uvloop", "trio"]:
    """The event loop of the workers: that of the test."""
    name, options = anyio_backend
    return "trio" if name == "trio" else "uvloop" if options["use_uvloop"] else "asyncio"


@pytest.fixture
def serve(loop: Literal["asyncio", "uvloop", "trio"], monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve one listener with workers, for the duration of a block."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))  # workers import handlers from these tests

    @asynccontextmanager
    async def serving(
        *,
        count: int = 2,
        address: str = "127.0.0.1:0",
        handler: str = ECHO,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> AsyncIterator[Served]:
        arguments = more.pop("handler_arguments", None)
        given = ListenerOptions(**({"shutdown_timeout": 0.0} | (options or {})))
        listener = WorkerListener(
            name="echo", address=address, handler=handler, handler_arguments=arguments, options=given
        )
        with anyio.fail_after(PATIENCE_S * 2):
            async with Workers([listener], count=count, loop=loop, **more) as workers:
                (control,) = workers.listeners()
                served = Served(workers, control, (await control.get_status()).port or 0)
                try:
                    yield served
                finally:
                    for client in served.clients:
                        client.close()

    return serving


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: set[int]) -> None:
    """Return when none of these processes runs any more."""
    deadline = time.monotonic() + PATIENCE_S
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.02)
