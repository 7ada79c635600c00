"""CPU time of sending many datagrams to one peer: one by one, and in trains (UDP GSO), in one process.

    python benchmarks/trains.py

It measures the handler's own thread time while it sends, which includes the way through loopback to the client's
receive buffer. The client reads everything between two measurements, and none of it is lost. Over DTLS, the records are
sealed in that time, with AES-GCM.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import trustme

from dtls import Client
from esockd_core import DatagramConnection, DtlsOptions, open_listener
from harness.machine import facts, share_cpus
from harness.rounds import Sample, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Iterable

BUFFER_BYTES = 4 * 1024 * 1024
NUMBERS = (4, 16, 64)


async def cpu_us_per_datagram(style: str, number: int, options: argparse.Namespace, certfile: Path | None) -> float:
    """Send a number of datagrams again and again, over DTLS with a certificate."""
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

    given: dict[str, Any] = {} if certfile is None else {"dtls": DtlsOptions(certfile=certfile)}
    async with open_listener(
        "trains", "dtls://127.0.0.1:0" if given else "udp://127.0.0.1:0", handle, **given
    ) as listener:
        assert listener.port is not None
        with Client(listener.port) as peer:
            if given:
                await asyncio.to_thread(peer.shake)
            client = peer.socket
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            client.setblocking(False)
            for _ in range(options.turns):
                if given:
                    peer.send()
                else:
                    client.send(b"go")
                for _ in range(number):
                    await anyio.wait_readable(client)
                    client.recv(65_536)
    return sum(spent_ns) / 1000 / number / len(spent_ns)


def cases() -> Iterable[str]:
    """Every case by its name."""
    for kind in ("", ", DTLS"):
        for number in NUMBERS:
            yield f"send, {number} datagrams{kind}"
            yield f"send_many, {number} datagrams{kind}"


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

    with tempfile.TemporaryDirectory() as folder:
        certfile = Path(folder) / "server.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certfile))

        def take(name: str) -> Sample:
            style, _, rest = name.partition(", ")
            certificate = certfile if name.endswith("DTLS") else None
            number = int(rest.partition(" ")[0])
            return Sample(asyncio.run(cpu_us_per_datagram(style, number, options, certificate)), {})

        results = interleaved(
            list(cases()), options.rounds, take, lambda line: print(line, file=sys.stderr, flush=True)
        )
    rows = []
    for name, series in results.items():
        against = results[name.replace("send_many", "send")]
        rows.append([name, figure(series, 2), f"{series.ratio_to(against):.2f}"])
    print(markdown(["", "CPU µs a datagram (range)", "vs send"], rows))


if __name__ == "__main__":
    main()
