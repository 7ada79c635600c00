"""A hardened gateway for Redis, which itself should listen to nobody but this machine.

python examples/redis_gateway.py tls://127.0.0.1:6380 127.0.0.1:6379 server.pem server.key ca.pem
redis-cli --tls --cacert ca.pem -p 6380 ping  # in another terminal
redis-cli -p 6379 client list  # all of them come from the gateway
"""

from __future__ import annotations

import sys
from functools import partial

import anyio

from esockd_core import Server, TcpOptions, TlsOptions
from esockd_core.handlers import ForwardHandler


async def main(address: str, upstream: str, certfile: str, keyfile: str, *client_ca: str) -> None:
    """Forward until SIGINT or SIGTERM.

    Args:
        address: Where to listen.
        upstream: Where Redis is.
        certfile: The certificate.
        keyfile: Its key.
        client_ca: Who signs certificates of clients; without it, they need none.
    """
    async with Server() as server:
        listener = await server.open(
            "redis",
            address,
            ForwardHandler(upstream, connect_timeout=2),
            tls=TlsOptions(certfile=certfile, keyfile=keyfile, client_ca=client_ca[0] if client_ca else None),
            access_rules=["allow 10.0.0.0/8", "allow 127.0.0.0/8", "deny all"],
            max_connections=500,
            max_connections_per_source=50,  # one program that forgets to close must not take all
            max_conn_rate_per_source="20/s burst 100",
            max_handshaking=50,
            handshake_timeout=3,
            idle_timeout=300,
            send_timeout=10,  # a client that asks for much and reads nothing
            max_loop_lag=0.5,
            tcp=TcpOptions(backlog=256, user_timeout=20),
        )
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
