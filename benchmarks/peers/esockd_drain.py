"""Ours, drained when a line comes: it prints how long that took, and how long the event loop left a task waiting.

`heeding` waits for the drain and ends; `deaf` only reads, and is cancelled when its time is over; `callback` leaves
all to `CallbackHandler`.
"""

from __future__ import annotations

import argparse
import sys
import time

import anyio
import anyio.to_thread

from esockd_core import CallbackHandler, Handler, StreamConnection, open_listener

LOOK_EVERY_S = 0.001
TIMEOUT_S = 1.0


async def heeding(connection: StreamConnection) -> None:
    await connection.wait_draining()


async def deaf(connection: StreamConnection) -> None:
    async for _ in connection:
        pass


HANDLERS: dict[str, Handler] = {"heeding": heeding, "deaf": deaf, "callback": CallbackHandler()}


class Watch:
    """A task that wants to run every millisecond.

    Attributes:
        worst_lag_s: How late it ran at worst.
        worst_cpu_s: The most CPU time that this process spent between two of its turns.
    """

    def __init__(self) -> None:
        self.worst_lag_s = 0.0
        self.worst_cpu_s = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due, spent_s = anyio.current_time() + LOOK_EVERY_S, time.process_time()
            await anyio.sleep_until(due)
            self.worst_lag_s = max(self.worst_lag_s, anyio.current_time() - due)
            self.worst_cpu_s = max(self.worst_cpu_s, time.process_time() - spent_s)


async def serve(style: str, connections: int) -> None:
    async with open_listener("drain", "127.0.0.1:0", HANDLERS[style], max_connections=connections) as listener:
        print(listener.port, flush=True)
        while len(listener.connections) < connections:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        print("connected", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        watch = Watch()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            began = anyio.current_time()
            await listener.drain(timeout=TIMEOUT_S)
            tasks.cancel_scope.cancel()
        ended = sum(listener.stats().shutdown_counts.values())
        print(ended, anyio.current_time() - began, watch.worst_lag_s, watch.worst_cpu_s, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--style", choices=list(HANDLERS), default="heeding")
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    backend = "trio" if options.loop == "trio" else "asyncio"
    backend_options = {} if backend == "trio" else {"use_uvloop": options.loop == "uvloop"}
    anyio.run(serve, options.style, options.connections, backend=backend, backend_options=backend_options)


if __name__ == "__main__":
    main()
