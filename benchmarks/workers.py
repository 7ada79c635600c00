"""Clients that connect all the time while workers are replaced one after the other: how many are refused or reset.

python benchmarks/workers.py --loop uvloop --restarts 10 --rate 2000
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from esockd_core import ListenerOptions, TcpOptions
from esockd_core.workers import WorkerListener, Workers
from harness.coming_clients import Clients, parser

if TYPE_CHECKING:
    import argparse


async def run(arguments: argparse.Namespace) -> None:
    """Replace the workers under load, and tell."""
    listener = WorkerListener(
        name="echo",
        address="127.0.0.1:0",
        handler="esockd_core.handlers:echo",
        options=ListenerOptions(max_connections=None, tcp=TcpOptions(backlog=4096)),
    )
    async with Workers([listener], count=arguments.workers, loop=arguments.loop) as workers:
        (control,) = workers.listeners()
        clients = Clients((await control.get_status()).port or 0)

        async def restart() -> None:
            for _ in range(arguments.restarts):
                await workers.restart()

        await clients.come_during(restart, arguments.rate)
        stats = await control.get_stats()
    replaced = f"{arguments.restarts * arguments.workers} workers replaced"
    clients.tell(arguments.loop, f"{arguments.workers} workers", replaced)
    print(f"the listener: {stats.accepted} accepted, {stats.refused} refused")


def main() -> None:
    """Read the command line, and run."""
    arguments = parser(__doc__, workers=2)
    arguments.add_argument("--restarts", type=int, default=10, help="times that all workers are replaced")
    anyio.run(run, arguments.parse_args())


if __name__ == "__main__":
    main()
