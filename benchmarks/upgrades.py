"""Clients that connect all the time while the whole program is replaced again and again: how many are lost.

    python benchmarks/upgrades.py --loop uvloop --upgrades 20 --rate 2000

With `--workers 0` the program is one process. The clients are in this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio

from esockd_core import ControlClient, raise_open_file_limit
from harness.coming_clients import Clients, parser

if TYPE_CHECKING:
    import argparse


async def upgrade(socket: Path) -> int:
    """Upgrade, wait until the program before has ended, and return the process id of the new one."""
    async with ControlClient(socket) as client:
        done = await client.call("upgrade")
    with suppress(ProcessLookupError):
        while True:
            os.kill(done["replaced"], 0)
            with suppress(ChildProcessError):
                os.waitpid(done["replaced"], os.WNOHANG)  # noqa: ASYNC222 (it does not block)
            await anyio.sleep(0.02)
    return int(done["pid"])


async def run(arguments: argparse.Namespace, folder: str) -> None:
    """Replace the program under load, and tell."""
    workers = ("--workers", str(arguments.workers)) if arguments.workers else ()
    options = ("-i", "edge", "-c", "infinity", "--backlog", "4096", "--loop", arguments.loop)
    program = subprocess.Popen(  # noqa: ASYNC220 (it serves for the whole run)
        [sys.executable, "-m", "esockd_cli", "open", "echo", "127.0.0.1:0", *options, *workers],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ESOCKD_RUNTIME_DIR": folder},
    )
    if program.stdout is None:
        raise AssertionError("it has a pipe")
    clients = Clients(int(program.stdout.readline().rpartition(":")[2]))
    pid = program.pid

    async def replace() -> None:
        nonlocal pid
        for _ in range(arguments.upgrades):
            pid = await upgrade(Path(folder, "edge.sock"))

    try:
        await clients.come_during(replace, arguments.rate)
    finally:
        os.kill(pid, signal.SIGTERM)
    kind = f"{arguments.workers} workers" if arguments.workers else "one process"
    clients.tell(arguments.loop, kind, f"{arguments.upgrades} upgrades")


def main() -> None:
    """Read the command line, and run."""
    arguments = parser(__doc__, workers=0)
    arguments.add_argument("--upgrades", type=int, default=20)
    raise_open_file_limit()
    with TemporaryDirectory(prefix="esockd-") as folder:
        anyio.run(run, arguments.parse_args(), folder)


if __name__ == "__main__":
    main()
