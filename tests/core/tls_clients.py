"""Clients of TLS, blocking and for a thread, and the authority that they trust."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import trustme
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core import Listener

AUTHORITY = trustme.CA()


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A context that trusts the authority, for one version or for all."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def dial(listener: Listener, sent: bytes = b"") -> socket.socket:
    """A blocking client, which has sent something."""
    assert listener.port is not None
    client = socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_S)
    client.sendall(sent)
    return client


async def run(client: Callable[[], Any]) -> Any:
    """Run a blocking client in a thread."""
    return await anyio.to_thread.run_sync(client, abandon_on_cancel=True)
