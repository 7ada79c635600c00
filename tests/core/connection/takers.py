"""Clients that take what is sent slowly or not at all, and how the stream ends for them."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

from tests.core.tls_clients import client_context
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from esockd_core import Listener

RECEIVE_BUFFER_BYTES: Final = 32_768  # of the clients: the rest waits at the listener's end
PIECE_BYTES: Final = 8_192
SECONDS_PER_PIECE: Final = 0.02


def dial_slow(listener: Listener, *, tls: bool = False) -> socket.socket:
    """A blocking client whose kernel holds little for it."""
    assert listener.port is not None
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", listener.port))
    if tls:
        return client_context().wrap_socket(client, server_hostname="localhost", suppress_ragged_eofs=False)
    return client


def take_slowly(client: socket.socket) -> tuple[int, str]:
    """Take a little all the time; how much there was, and how it ended."""
    taken = 0
    while True:
        try:
            data = client.recv(PIECE_BYTES)
        except (ConnectionResetError, ssl.SSLEOFError) as error:
            return taken, type(error).__name__
        if not data:
            return taken, "whole"
        taken += len(data)
        time.sleep(SECONDS_PER_PIECE)


def take_rest(client: socket.socket) -> str:
    """How the stream ends, whatever comes before; of TLS too, what the TCP below does."""
    raw = client
    if isinstance(client, ssl.SSLSocket):
        raw = socket.socket(fileno=client.detach())
        raw.settimeout(PATIENCE_S)
    with raw:
        try:
            while raw.recv(65_536):
                pass
        except ConnectionResetError:
            return "reset"
        return "whole"
