"""Counterparts of esockd's own cases for DTLS; each test names the case of emqx/esockd that it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.datagrams.udp import echo
from tests.core.dtls.peers import Client, Peer

from esockd_core import DtlsOptions, InvalidOption, open_listener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_dtls_server(dtls: DtlsOptions) -> None:
    """t_dtls_server: what a client sends comes back, message by message."""
    with anyio.fail_after(20):
        async with open_listener("echo", "dtls://127.0.0.1:0", echo, dtls=dtls) as listener:
            with Peer(listener) as peer:
                await peer.shake()
                assert await peer.ask(b"Hi") == b"Hi"
                assert await peer.ask(b"Hello") == b"Hello"


async def test_update_dtls_options(dtls: DtlsOptions, certificates: Path) -> None:
    """t_update_dtls_options: bad ones change nothing, good ones are for new clients, and old clients go on."""
    with anyio.fail_after(20):
        async with open_listener("echo", "dtls://127.0.0.1:0", echo, dtls=dtls) as listener:
            with Peer(listener) as old, Peer(listener, Client(authority=certificates / "ca.pem")) as new:
                assert await (await old.shake()).ask(b"Sock1") == b"Sock1"
                with pytest.raises(InvalidOption, match=r"dtls\.certfile .* does not exist"):
                    await listener.set_options(dtls={"certfile": certificates / "none.pem"})
                await listener.set_options(dtls={"certfile": certificates / "other.example.org.pem"})
                assert await old.ask(b"Sock1") == b"Sock1"
                assert await (await new.shake()).ask(b"Sock2") == b"Sock2"
                shown = new.client.tls.get_peer_certificate(as_cryptography=True)
                assert shown is not None
                assert "other.example.org" in str(shown.extensions)
