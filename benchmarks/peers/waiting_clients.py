"""Clients that connect from several addresses, wait for the server to finish, and finish too."""

from __future__ import annotations

import argparse
import selectors
import socket

SOURCES = 16  # 127.0.0.1 to 127.0.0.16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    options = parser.parse_args()
    waiting = selectors.DefaultSelector()
    for number in range(options.connections):
        source = f"127.0.0.{1 + number % SOURCES}"
        client = socket.create_connection(("127.0.0.1", options.port), 10, (source, 0))
        waiting.register(client, selectors.EVENT_READ)
    while waiting.get_map():
        for key, _ in waiting.select():
            waiting.unregister(key.fileobj)
            client = key.fileobj  # type: ignore[assignment] # it was registered as one
            client.close()


if __name__ == "__main__":
    main()
