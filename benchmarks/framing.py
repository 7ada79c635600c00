"""Compare ways to take messages from a stream: a connection's own, and AnyIO's buffered stream around the connection.

    .venv/bin/python benchmarks/framing.py
    .venv/bin/python benchmarks/framing.py --messages 200000 --rounds 7

The client is a thread that writes with blocking calls: many messages at a time, or one and waits for its answer. The
figure is the CPU time that one message takes of the thread with the event loop, so the client's is not in it. The two
ways take turns, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import threading
import time
from typing import TYPE_CHECKING

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from esockd_core import StreamConnection, open_listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CASES = {
    "32 bytes exactly": 32,
    "32 bytes until a newline": 32,
    "512 bytes until a newline": 512,
    "lines of 32 bytes": 32,
    "lines of 512 bytes": 512,
    "lines of 32 bytes, answered": 32,
}
LOOPS = {"asyncio": ("asyncio", {}), "uvloop": ("asyncio", {"use_uvloop": True}), "trio": ("trio", {})}


def send(port: int, case: str, messages: int) -> None:
    """Write all messages, and wait until the handler has closed."""
    message = b"x" * (CASES[case] - 1) + b"\n"
    with socket.create_connection(("127.0.0.1", port)) as client:
        if case.endswith("answered"):
            for _ in range(messages):
                client.sendall(message)
                client.recv(1)
        else:
            for _ in range(messages // 1000):
                client.sendall(message * 1000)
        client.recv(1)


def ours(connection: StreamConnection, case: str) -> Callable[[], Awaitable[bytes]]:
    """Take a message by the connection itself."""
    size = CASES[case]
    if case.endswith("exactly"):
        return lambda: connection.receive_exactly(size)
    if case.endswith("newline"):
        return lambda: connection.receive_until(b"\n", 1000)
    return connection.lines(1000).__anext__


def anyios(connection: StreamConnection, case: str) -> Callable[[], Awaitable[bytes]]:
    """Take a message by AnyIO's stream."""
    size, stream = CASES[case], BufferedByteReceiveStream(connection)
    if case.endswith("exactly"):
        return lambda: stream.receive_exactly(size)
    return lambda: stream.receive_until(b"\n", 1000)


async def measure(way: Callable[..., Callable[[], Awaitable[bytes]]], case: str, messages: int) -> float:
    """Give the CPU time for one message, in nanoseconds."""
    spent = 0.0
    is_answered = case.endswith("answered")

    async def handle(connection: StreamConnection) -> None:
        nonlocal spent
        receive = way(connection, case)
        began = time.thread_time()
        for _ in range(messages):
            await receive()
            if is_answered:
                await connection.send(b".")
        spent = time.thread_time() - began

    async with open_listener("framing", "127.0.0.1:0", handle) as listener:
        client = threading.Thread(target=send, args=(listener.port, case, messages))
        client.start()
        await anyio.to_thread.run_sync(client.join)
    return spent / messages * 1e9


def main() -> None:
    """Run it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--messages", type=int, default=50_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    print("| | ns a message, AnyIO's stream | ns a message, the connection | ratio |\n|---|---|---|---|")
    for loop, (backend, options) in LOOPS.items():
        for case in CASES:
            results: dict[str, list[float]] = {"anyio": [], "ours": []}
            for _ in range(given.rounds):
                for name, way in (("anyio", anyios), ("ours", ours)):
                    taken = anyio.run(measure, way, case, given.messages, backend=backend, backend_options=options)
                    results[name].append(taken)
            theirs, own = (statistics.median(each) for each in results.values())
            print(f"| {loop}, {case} | {theirs:.0f} | {own:.0f} | {own / theirs:.2f} |")


if __name__ == "__main__":
    main()
