"""What a datagram costs an echo server when several wait at once: thread time, without a client on another CPU.

    python benchmarks/datagram_turns.py

Each case is a process of its own. In one turn, so many peers have each sent a datagram of 64 bytes, and the time until
all are answered is taken by the clock of the thread, which stands still while other programs have the CPU. The figure
of a process is the lower quartile of its turns, and the table has the median over interleaved rounds.

`system calls` is recvfrom(2) and sendto(2) alone, called from Python for each datagram, without an event loop and in a
callback of one: no server in Python costs less. `batched system calls` is recvmmsg(2) and sendmmsg(2) by ctypes with
buffers made before, and nothing is looked at. `memory kept` is a process whose malloc never gives memory back:
asyncio's DatagramProtocol asks for 256 KiB for each datagram, which glibc may map anew each time.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import trio

from esockd_core import CallbackHandler, DatagramConnection, open_listener
from harness.machine import facts, share_cpus
from harness.rounds import Sample, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SIZE = 64
TURNS = 300
MOST = 64
NAME_BYTES = 28  # of struct sockaddr_in6
NOTHING = ("", "")
KEEP = {"MALLOC_MMAP_THRESHOLD_": "4000000", "MALLOC_TRIM_THRESHOLD_": "8000000"}
OURS = ("esockd coroutine", "esockd callback")


class Turn:
    """Tells when all peers are answered."""

    def __init__(self, loop: str) -> None:
        self.is_trio = loop == "trio"
        self.left = 0
        self.finish: Callable[[], object] | None = None

    def begin(self, number: int) -> Awaitable[None]:
        """Expect so many answers, and return what is done once they are there."""
        self.left = number
        if self.is_trio:
            event = trio.Event()
            self.finish = event.set
            return event.wait()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finish = partial(done.set_result, None)
        return done

    def answered(self) -> None:
        """Note an answer."""
        self.left -= 1
        if not self.left and self.finish is not None:
            self.finish()


def make_clients(number: int, port: int) -> list[socket.socket]:
    """The sockets of peers."""
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(number)]
    for each in clients:
        each.connect(("127.0.0.1", port))
        each.settimeout(30)
    return clients


async def measure_server(server: str, loop: str, number: int) -> list[int]:
    """The times of the turns of a server, in nanoseconds."""
    turn = Turn(loop)

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)
            turn.answered()

    class Callbacks(CallbackHandler[DatagramConnection]):
        def data_received(self, connection: DatagramConnection, data: bytes) -> None:
            connection.send_nowait(data)
            turn.answered()

    async def echo(connection: DatagramConnection) -> None:
        async for datagram in connection:
            await connection.send(datagram)
            turn.answered()

    if server == "DatagramProtocol":
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        return await take_turns(turn, number, transport.get_extra_info("sockname")[1])
    if server == "system calls":
        return await measure_bare_loop(turn, number)
    if server == "anyio":
        return await measure_anyio(turn, number)
    handler = Callbacks() if server.endswith("callback") else echo
    limits: dict[str, Any] = {"max_conn_rate": "1000000/s", "access_rules": ["deny 10.0.0.0/8", "allow 127.0.0.0/8"]}
    async with open_listener("echo", "udp://127.0.0.1:0", handler, **limits) as listener:
        assert listener.port is not None
        return await take_turns(turn, number, listener.port)


async def measure_bare_loop(turn: Turn, number: int) -> list[int]:
    """The times of a loop that calls a function when its socket is readable."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        recvfrom, sendto = server.recvfrom, server.sendto

        def answer() -> None:
            for _ in range(number):
                data, address = recvfrom(65_536)
                sendto(data, address)
                turn.answered()

        loop.add_reader(server, answer)
        try:
            return await take_turns(turn, number, server.getsockname()[1])
        finally:
            loop.remove_reader(server)


async def measure_anyio(turn: Turn, number: int) -> list[int]:
    """The times of AnyIO's UDP socket, served as its documentation shows."""
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as udp, anyio.create_task_group() as tasks:

        async def echo() -> None:
            async for data, (host, port) in udp:
                await udp.sendto(data, host, port)
                turn.answered()

        tasks.start_soon(echo)
        spent = await take_turns(turn, number, udp.extra(anyio.abc.SocketAttribute.local_port))
        tasks.cancel_scope.cancel()
    return spent


async def take_turns(turn: Turn, number: int, port: int) -> list[int]:
    """Let all peers send, and measure until all are answered, so many times over."""
    clients, spent = make_clients(number, port), []
    for _ in range(TURNS):
        for each in clients:
            each.send(bytes(SIZE))
        done = turn.begin(number)
        before = time.thread_time_ns()
        await done
        spent.append(time.thread_time_ns() - before)
        for each in clients:
            each.recv(SIZE)
    return spent


def measure_calls(number: int, *, is_batched: bool) -> list[int]:
    """The times of the system calls alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        answer = batched(server) if is_batched else one_by_one(server)
        clients, spent = make_clients(number, server.getsockname()[1]), []
        for _ in range(TURNS):
            for each in clients:
                each.send(bytes(SIZE))
            before = time.thread_time_ns()
            answer(number)
            spent.append(time.thread_time_ns() - before)
            for each in clients:
                each.recv(SIZE)
    return spent


def one_by_one(server: socket.socket) -> Callable[[int], None]:
    """Answers so many datagrams, each by two calls."""

    def answer(number: int) -> None:
        for _ in range(number):
            datagram, address = server.recvfrom(65_536)
            server.sendto(datagram, address)

    return answer


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """struct mmsghdr, with the struct msghdr in it."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("length", ctypes.c_uint),
    )


def batched(server: socket.socket) -> Callable[[int], None]:
    """Answers so many datagrams by two calls."""
    libc = ctypes.CDLL(None, use_errno=True)
    data, names = ctypes.create_string_buffer(MOST * SIZE), ctypes.create_string_buffer(MOST * NAME_BYTES)
    vectors, messages = (Vector * MOST)(), (Message * MOST)()
    for index in range(MOST):
        vectors[index] = Vector(ctypes.addressof(data) + index * SIZE, SIZE)
        messages[index].name = ctypes.addressof(names) + index * NAME_BYTES
        messages[index].name_length = NAME_BYTES
        messages[index].vectors = ctypes.addressof(vectors) + index * ctypes.sizeof(Vector)
        messages[index].vector_count = 1

    kept = (data, names, vectors)  # the messages have their addresses only

    def answer(number: int) -> None:
        assert kept
        taken = libc.recvmmsg(server.fileno(), messages, number, 0, None)
        if taken != number or libc.sendmmsg(server.fileno(), messages, number, 0) != number:
            raise OSError(ctypes.get_errno(), "not all of them")

    return answer


def run_case(name: str) -> None:
    """Print the lower quartile of a case, in nanoseconds for each datagram."""
    what, loop, peers = name.split(", ")[:3]
    number = int(peers.split(" ")[0])
    if loop == "no loop":
        spent = measure_calls(number, is_batched=what.startswith("batched"))
    elif loop == "trio":
        spent = trio.run(measure_server, what, loop, number)
    elif loop == "uvloop":
        import uvloop  # noqa: PLC0415

        spent = uvloop.run(measure_server(what, loop, number))
    else:
        spent = asyncio.run(measure_server(what, loop, number))
    print(sorted(spent)[len(spent) // 4] / number)


def cases() -> Iterator[tuple[str, tuple[str, str]]]:
    """Each case, and the two that it is compared with."""
    for peers in ("64 peers", "1 peer"):
        yield f"system calls, no loop, {peers}", NOTHING
        yield f"batched system calls, no loop, {peers}", NOTHING
        for loop in ("uvloop", "asyncio"):
            protocol, anyio_socket = f"DatagramProtocol, {loop}, {peers}", f"anyio, {loop}, {peers}"
            for server in ("system calls", "DatagramProtocol", "anyio", *OURS):
                yield f"{server}, {loop}, {peers}", (protocol, anyio_socket)
        for server in ("anyio", *OURS):
            yield f"{server}, trio, {peers}", ("", f"anyio, trio, {peers}")
        yield f"DatagramProtocol, asyncio, {peers}, memory kept", (f"DatagramProtocol, asyncio, {peers}", "")


def take(name: str) -> Sample:
    """Measure a case in a process of its own."""
    environment = os.environ | (KEEP if name.endswith("memory kept") else {})
    command = [sys.executable, __file__, "--case", name]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    return Sample(float(told) / 1000, {})


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", help="measure this one in this process")
    options = parser.parse_args()
    if options.case is not None:
        run_case(options.case)
        return
    for name, told in facts(share_cpus(1), ("uvloop", "anyio", "trio", "esockd-core")).items():
        print(f"- {name}: {told}")
    against = dict(cases())
    results = interleaved(list(against), options.rounds, take, lambda line: print(line, file=sys.stderr, flush=True))
    rows = []
    for name, series in results.items():
        mate = results.get(name.replace("callback", "coroutine")) if "callback" in name else None
        others = (*(results.get(each) for each in against[name]), mate)
        ratios = ["" if each is None else f"{series.ratio_to(each):.2f}" for each in others]
        rows.append([name, figure(series, 2), *ratios])
    print(
        "\n"
        + markdown(["", "µs a datagram (range)", "vs Protocol, same loop", "vs anyio, same loop", "vs coroutine"], rows)
    )


if __name__ == "__main__":
    main()
