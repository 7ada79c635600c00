"""A listening socket that decides itself how clients are taken from it."""

from __future__ import annotations

import socket


class AskedSocket(socket.socket):
    """A listening socket with its own `accept` and `dup`, which every event loop has to call."""
