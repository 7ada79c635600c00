"""Peers: HAProxy, or socat with a child for each connection. This process becomes the program."""

from __future__ import annotations

import argparse
import os
import random
import socket
import tempfile
import time

HAPROXY = """
global
    nbthread {threads}
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen forward
    bind 127.0.0.1:{port} backlog 1024
    server echo 127.0.0.1:{to}
"""
START_S = 10


def free_port() -> int:
    """A port outside of the range that the kernel takes those of outgoing connections from (ip(7))."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def tell_when_it_listens(port: int) -> None:
    """Print the port once somebody takes connections there."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            print(port, flush=True)
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="path of haproxy or socat")
    parser.add_argument("--to", type=int, required=True, help="port of the upstream on 127.0.0.1")
    parser.add_argument("--threads", type=int, default=1, help="of HAProxy (1)")
    options = parser.parse_args()
    port = free_port()
    if os.fork() == 0:
        tell_when_it_listens(port)
        os._exit(0)
    if options.program.endswith("haproxy"):
        config = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the program reads it)
        config.write(HAPROXY.format(port=port, to=options.to, threads=options.threads))
        config.flush()
        os.set_inheritable(config.fileno(), True)
        command = ["haproxy", "-db", "-q", "-f", f"/proc/self/fd/{config.fileno()}"]
    else:
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay"
        command = ["socat", listen, f"TCP:127.0.0.1:{options.to},nodelay"]
    os.execv(options.program, command)


if __name__ == "__main__":
    main()
