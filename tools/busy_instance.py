"""An instance of esockd with clients of many kinds, for pictures: some are polite, some too many, some unwelcome.

Usage: .venv/bin/python tools/busy_instance.py

Prints a line when it serves, and goes on until it is killed.
"""

from __future__ import annotations

import math
import random
import ssl
import time
from contextlib import suppress
from tempfile import TemporaryDirectory

import anyio
import trustme
from anyio.streams.tls import TLSStream

from esockd_core import ControlServer, Server, StreamConnection, TlsOptions
from esockd_core.handlers import echo

AUTHORITY = trustme.CA()
CHANCE = random.Random(7)  # noqa: S311 - the same every time is what is wanted


async def chat(connection: StreamConnection) -> None:
    """Answer with three times as much."""
    async for data in connection:
        await connection.send(data * 3)


async def client(host: str, port: int, *, stay_s: float, size: int, source: str, tls: ssl.SSLContext | None) -> None:
    """Come, talk a while, and leave."""
    with suppress(OSError, ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError):
        with anyio.fail_after(60):
            plain = await anyio.connect_tcp(host, port, local_host=source)
            async with plain:
                stream = plain if tls is None else await TLSStream.wrap(plain, hostname="localhost", ssl_context=tls)
                until = time.monotonic() + stay_s
                while time.monotonic() < until:
                    await stream.send(bytes(size))
                    await stream.receive()
                    await anyio.sleep(CHANCE.uniform(0.5, 1.5))


async def crowd(
    host: str, port: int, *, per_s: float, stay_s: float, size: int, tls: ssl.SSLContext | None = None
) -> None:
    """Clients that come in waves, now and then from an address that is denied."""
    phase = CHANCE.uniform(0, 6)
    async with anyio.create_task_group() as tasks:
        while True:
            wave = 1 + 0.6 * math.sin(time.monotonic() / 9 + phase) + 0.25 * math.sin(time.monotonic() / 2.3)
            await anyio.sleep(CHANCE.expovariate(per_s * max(0.05, wave)))
            source = "127.0.0.66" if host != "::1" and CHANCE.random() < 0.06 else f"127.0.0.{CHANCE.randint(1, 9)}"

            async def come(source: str = source if host != "::1" else "::1") -> None:
                context = None if CHANCE.random() < 0.03 else tls
                await client(
                    host, port, stay_s=CHANCE.uniform(0.2, 2) * stay_s, size=CHANCE.randint(size // 2, size * 2),
                    source=source, tls=context,
                )  # fmt: skip

            tasks.start_soon(come)


async def main() -> None:
    """Serve, and be one's own clients."""
    rules = ["deny 127.0.0.66"]
    certificate = AUTHORITY.issue_cert("localhost")
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    AUTHORITY.configure_trust(trusting)
    with TemporaryDirectory() as folder:
        certificate.private_key_and_cert_chain_pem.write_to_path(f"{folder}/server.pem")
        tls = TlsOptions(certfile=f"{folder}/server.pem")
        async with Server() as server, ControlServer(server, "edge"), anyio.create_task_group() as tasks:
            await server.open("mqtt", "127.0.0.1:1883", chat, max_connections=400, access_rules=rules)
            await server.open("mqtts", "tls://127.0.0.1:8883", chat, max_connections=60, access_rules=rules, tls=tls)
            await server.open("redis", "[::1]:6380", echo, max_connections=64)
            await server.open("admin", "127.0.0.1:9000", echo, max_connections=16, access_rules=rules)
            old = await server.open("legacy", "127.0.0.1:7000", echo, max_connections=100)
            tasks.start_soon(lambda: crowd("127.0.0.1", 1883, per_s=28, stay_s=11, size=4_000))
            tasks.start_soon(lambda: crowd("127.0.0.1", 8883, per_s=6, stay_s=12, size=1_500, tls=trusting))
            tasks.start_soon(lambda: crowd("::1", 6380, per_s=5, stay_s=9, size=16_000))
            tasks.start_soon(lambda: crowd("127.0.0.1", 9000, per_s=0.3, stay_s=20, size=100))
            tasks.start_soon(lambda: crowd("127.0.0.1", 7000, per_s=3, stay_s=200, size=50))
            await anyio.sleep(4)
            await old.suspend()
            print("serving", flush=True)
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
