"""What the tests of datagram listeners share: a client socket, handlers in both styles, and the sum of all counters."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import anyio
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, DatagramConnection, Listener, Stats

if TYPE_CHECKING:
    from collections.abc import Iterable


class Client:
    """A client of a datagram listener, by a socket of its own."""

    def __init__(self, listener: Listener, host: str = "127.0.0.1", source: str | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((source or host, 0))
        self.socket.setblocking(False)
        assert listener.port is not None
        self.target = (host, listener.port)

    @property
    def name(self) -> tuple[str, int]:
        name: tuple[str, int] = self.socket.getsockname()[:2]
        return name

    def send(self, *datagrams: bytes) -> Self:
        for each in datagrams:
            self.socket.sendto(each, self.target)
        return self

    async def receive_from(self) -> tuple[bytes, tuple[str, int]]:
        with anyio.fail_after(PATIENCE_S):
            while True:
                await anyio.wait_readable(self.socket)
                data, address = self.socket.recvfrom(65_536)
                if address[1] == self.target[1]:  # or else a late one for who had this port before
                    return data, address[:2]

    async def receive(self) -> bytes:
        return (await self.receive_from())[0]

    async def ask(self, datagram: bytes) -> bytes:
        return await self.send(datagram).receive()

    def received(self) -> list[bytes]:
        """What is here already."""
        found: list[bytes] = []
        with suppress(BlockingIOError):
            while True:
                data, address = self.socket.recvfrom(65_536)
                if address[1] == self.target[1]:
                    found.append(data)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


async def echo(connection: DatagramConnection) -> None:
    async for datagram in connection:
        await connection.send(datagram)


class Echo(CallbackHandler[DatagramConnection]):
    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        connection.send_nowait(data)


class Note(CallbackHandler[DatagramConnection]):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def connection_made(self, connection: DatagramConnection) -> None:
        self.told.append("made")

    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        self.told.append(data)

    def drain_requested(self, connection: DatagramConnection) -> None:
        self.told.append("drain")
        super().drain_requested(connection)

    def connection_lost(self, connection: DatagramConnection, error: Exception | None) -> None:
        self.told.append(("lost", error))


def assert_all_accounted_for(stats: Stats, sent: int | None = None) -> None:
    """Every datagram was delivered, waits, was answered, or was dropped for one cause."""
    known = stats.datagrams_delivered + stats.datagrams_waiting + stats.datagrams_answered
    known += sum(stats.datagrams_dropped.values())
    assert stats.datagrams_in == known
    if sent is not None:
        assert stats.datagrams_in == sent


def drops(listener: Listener) -> dict[str, int]:
    return {str(cause): number for cause, number in listener.stats().datagrams_dropped.items()}


def several(datagram: bytes, times: int) -> Iterable[bytes]:
    return (b"%s %d" % (datagram, number) for number in range(times))
