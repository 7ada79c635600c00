"""Ours: a forwarder behind a listener of esockd-core, with every admission check and counter switched on."""

from __future__ import annotations

import argparse

import anyio

from esockd_core import open_listener
from esockd_core.handlers import ForwardHandler


async def serve(options: argparse.Namespace) -> None:
    async with open_listener(
        "forward",
        ("127.0.0.1", 0),
        ForwardHandler(("127.0.0.1", options.to)),
        max_connections=2000,
        max_conn_rate="1000000/s",
        access_rules=["deny 10.0.0.0/8", "allow 127.0.0.0/8", "deny all"],
    ) as listener:
        print(listener.port, flush=True)
        await anyio.sleep_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--to", type=int, required=True, help="port of the upstream on 127.0.0.1")
    options = parser.parse_args()
    if options.loop == "trio":
        anyio.run(serve, options, backend="trio")
    else:
        anyio.run(serve, options, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
