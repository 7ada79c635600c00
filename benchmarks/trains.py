"""CPU time of sending many datagrams to one peer: one by one, and in trains (UDP GSO), in one process.

    python benchmarks/trains.py

It measures the handler's own thread time while it sends, which includes the way through loopback to the client's
receive buffer. The client reads everything between two measurements, and none of it is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import time
from typing import TYPE_CHECKING

import anyio

from esockd_core import DatagramConnection, open_listener
from harness.machine import facts, share_cpus
from harness.rounds import Sample, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Iterable

BUFFER_BYTES = 4 * 1024 * 1024
NUMBERS = (4, 16, 64)


async def cpu_us_per_datagram(style: str, number: int, options: argparse.Namespace) -> float:
    """Send a number of datagrams again and again."""
    datagrams = [bytes(options.size)] * number
    spent_ns: list[int] = []

    async def handle(connection: DatagramConnection) -> None:
        async for _ in connection:
            before_ns = time.thread_time_ns()
            if style == "send_many":
                await connection.send_many(datagrams)
            else:
                for each in datagrams:
                    await connection.send(each)
            spent_ns.append(time.thread_time_ns() - before_ns)

    async with open_listener("trains", "udp://127.0.0.1:0", handle) as listener:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            client.connect(("127.0.0.1", listener.port))
            client.setblocking(False)
            for _ in range(options.turns):
                client.send(b"go")
                for _ in range(number):
                    await anyio.wait_readable(client)
                    client.recv(options.size)
    return sum(spent_ns) / 1000 / number / len(spent_ns)


def cases() -> Iterable[str]:
    """Every case by its name."""
    for number in NUMBERS:
        yield f"send, {number} datagrams"
        yield f"send_many, {number} datagrams"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=300, help="how often the datagrams are sent in a round (300)")
    parser.add_argument("--size", type=int, default=1_200, help="bytes of a datagram (1200)")
    options = parser.parse_args()
    for name, told in facts(share_cpus(1), ("esockd-core",)).items():
        print(f"- {name}: {told}")
    print(f"- {options.size} bytes, {options.turns} turns a round, {options.rounds} rounds, asyncio\n", flush=True)

    def take(name: str) -> Sample:
        style, _, rest = name.partition(", ")
        return Sample(asyncio.run(cpu_us_per_datagram(style, int(rest.partition(" ")[0]), options)), {})

    results = interleaved(list(cases()), options.rounds, take, lambda line: print(line, file=sys.stderr, flush=True))
    rows = []
    for name, series in results.items():
        against = results[name.replace("send_many", "send")]
        rows.append([name, figure(series, 2), f"{series.ratio_to(against):.2f}"])
    print(markdown(["", "CPU µs a datagram (range)", "vs send"], rows))


if __name__ == "__main__":
    main()
