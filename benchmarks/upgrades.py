"""Clients that connect all the time while the whole program is replaced again and again: how many are lost.

    python benchmarks/upgrades.py --loop uvloop --upgrades 20 --rate 2000

With `--workers 0` the program is one process. Clients are those of `workers.py`, in this process.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from esockd_core import ControlClient, raise_open_file_limit
from workers import Clients


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
    try:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(clients.come, arguments.rate)
            began = time.monotonic()
            for _ in range(arguments.upgrades):
                pid = await upgrade(Path(folder, "edge.sock"))
            took_s = time.monotonic() - began
            clients.is_over = True
    finally:
        os.kill(pid, signal.SIGTERM)
    total = sum(clients.counts.values())
    kind = f"{arguments.workers} workers" if arguments.workers else "one process"
    print(f"Python {platform.python_version()}, {arguments.loop}, {kind}, {platform.release()}")
    print(f"{arguments.upgrades} upgrades in {took_s:.1f} s, {total / took_s:.0f} clients a second")
    print(f"clients: {dict(clients.counts)}")


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "trio"), default="uvloop")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2000, help="clients a second")
    raise_open_file_limit()
    with TemporaryDirectory(prefix="esockd-") as folder:
        anyio.run(run, parser.parse_args(), folder)


if __name__ == "__main__":
    main()
