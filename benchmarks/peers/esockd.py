"""Ours: an echo handler behind a listener of esockd-core, with every admission check and counter switched on.

Access rules (the one that decides comes last), a limit of connections and a rate limit so high that it never bites: a
connection goes through all of them. `--refuse` lets the last rule deny everybody. `--rehearse` rehearses a change:
a rule and limits that would refuse nobody (`pass`), with limits of sources (`sources`), or everybody (`refuse`).
`--speedups` uses esockd-speedups; without it, everything is in Python.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import anyio

from esockd_core import CallbackHandler, Connection, Listener, open_listener

if TYPE_CHECKING:
    from collections.abc import Sequence


async def echo(connection: Connection) -> None:
    async for data in connection:
        await connection.send(data)


class Echo(CallbackHandler):
    """The same without a task for each connection."""

    def data_received(self, connection: Connection, data: bytes) -> None:
        """Write it back."""
        connection.send_nowait(data)


def access_rules(count: int, verdict: str) -> Sequence[str]:
    """`count` rules of which the last one matches every client on loopback: that many the first match has to pass."""
    others = [f"deny 10.{number >> 8 & 255}.{number & 255}.0/24" for number in range(count - 1)]
    return [*others, f"{verdict} 127.0.0.0/8"]


async def rehearse(listener: Listener, what: str) -> None:
    """Judge every client a second time."""
    if what == "refuse":
        await listener.rehearse("deny 127.0.0.0/8", max_conn_rate="2000000/s", max_connections=1900)
    elif what == "pass":
        await listener.rehearse("deny 192.0.2.0/24", max_conn_rate="2000000/s", max_connections=1900)
    elif what == "sources":
        await listener.rehearse(
            "deny 192.0.2.0/24",
            max_conn_rate="2000000/s",
            max_connections=1900,
            max_conn_rate_per_source="2000000/s",
            max_connections_per_source=1900,
        )


def require_speedups() -> None:
    """Fail if esockd-speedups does not do its part, or the figures would be those of Python."""
    import esockd_speedups  # noqa: PLC0415 - only where it is measured

    if not esockd_speedups.in_use():
        raise SystemExit("esockd-speedups is not in use")


async def serve(options: argparse.Namespace) -> None:
    async with open_listener(
        "echo",
        ("127.0.0.1", options.port),
        Echo() if options.style == "callback" else echo,
        max_connections=options.max_connections,
        max_conn_rate="1000000/s",
        access_rules=access_rules(options.rules, "deny" if options.refuse else "allow"),
    ) as listener:
        await rehearse(listener, options.rehearse)
        if options.speedups:
            require_speedups()
        print(listener.port, flush=True)
        await anyio.sleep_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--style", choices=["coroutine", "callback"], default="coroutine")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-connections", type=int, default=2000)
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--refuse", action="store_true")
    parser.add_argument("--speedups", action="store_true")
    parser.add_argument("--rehearse", choices=["none", "pass", "sources", "refuse"], default="none")
    options = parser.parse_args()
    os.environ["ESOCKD_SPEEDUPS"] = str(int(options.speedups))  # read when the first listener opens
    if options.loop == "trio":
        anyio.run(serve, options, backend="trio")
    else:
        anyio.run(serve, options, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
