"""Opening connections of the load."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from typing import TYPE_CHECKING

from esockd_cli.bench.links import DatagramLink, StreamLink

if TYPE_CHECKING:
    from esockd_cli.bench.links import Link, Owner
    from esockd_cli.bench.plan import Plan


async def open_link(plan: Plan, owner: Owner) -> Link:
    """Open a connection, its handshake included.

    Raises:
        OSError: It cannot be opened.
        ssl.SSLError: The handshake fails.
        TimeoutError: It takes too long.
    """
    loop = asyncio.get_running_loop()
    host, port = plan.host, plan.port
    async with asyncio.timeout(plan.timeout):
        match plan.transport:
            case "unix":
                path = f"\0{host[1:]}" if host.startswith("@") else host
                return (await loop.create_unix_connection(lambda: StreamLink(owner), path))[1]
            case "tls":
                context = trusting_context()
                _, link = await loop.create_connection(
                    lambda: StreamLink(owner), host, port, ssl=context, server_hostname=plan.server_name
                )
                return link
            case "udp":
                return (await loop.create_datagram_endpoint(lambda: DatagramLink(owner), remote_addr=(host, port)))[1]
            case "dtls":
                from esockd_cli.bench.dtls import DtlsLink  # noqa: PLC0415

                _, session = await loop.create_datagram_endpoint(lambda: DtlsLink(owner), remote_addr=(host, port))
                await session.shake()
                return session
        return (await loop.create_connection(lambda: StreamLink(owner), host, port))[1]


@cache
def trusting_context() -> ssl.SSLContext:
    """TLS of clients that believe any certificate: they send nothing that is worth reading."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
