"""Ours with twenty listeners and a control socket, to be looked at."""

from __future__ import annotations

import sys

import anyio

from esockd_core import ControlServer, Server
from esockd_core.handlers import echo

LISTENERS = 20


async def main(name: str) -> None:
    """Serve, and print the ports in one line."""
    async with Server() as server, ControlServer(server, name):
        ports = []
        for index in range(LISTENERS):
            listener = await server.open(f"listener-{index:02}", "127.0.0.1:0", echo, max_connections=None)
            ports.append(str(listener.port))
        print(" ".join(ports), flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend="asyncio", backend_options={"use_uvloop": True})
