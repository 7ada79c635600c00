"""The options of a DTLS listener: certificates by name and new ones, and what does not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.core.datagrams.udp import echo
from tests.core.dtls.conftest import serving
from tests.core.dtls.peers import Client, Peer

from esockd_core import DtlsOptions, InvalidOption, Listener, ListenerOptions, TlsCertificate, UdpOptions

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.anyio


def subject(peer: Peer) -> str:
    shown = peer.client.tls.get_peer_certificate(as_cryptography=True)
    assert shown is not None
    return str(shown.extensions)


async def test_certificates_by_name(certificates: Path) -> None:
    other = TlsCertificate(certfile=certificates / "other.example.org.pem")
    options = DtlsOptions(certfile=certificates / "localhost.pem", sni={"other.example.org": other}, mtu=400)
    async with serving(options) as listener:
        other_client, own_client = (Client(server_name=name, mtu=400) for name in ("other.example.org", "localhost"))
        with Peer(listener, other_client) as one, Peer(listener, own_client) as two:
            assert "other.example.org" in subject(await one.shake())
            assert "localhost" in subject(await two.shake())


async def test_new_certificates_are_for_new_sessions(dtls: DtlsOptions, certificates: Path) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as old, Peer(listener) as new:
            await old.shake()
            plan = await listener.set_options(dtls={"certfile": certificates / "other.example.org.pem"})
            assert [change.effect for change in plan.changes] == ["new connections"]
            await new.shake()
            assert "localhost" in subject(old)
            assert "other.example.org" in subject(new)
            for peer in (old, new):
                assert await peer.ask(b"hello") == b"hello"


async def test_files_are_read_again_on_request(certificates: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_bytes((certificates / "localhost.pem").read_bytes())
    async with serving(DtlsOptions(certfile=own)) as listener:
        own.write_bytes((certificates / "other.example.org.pem").read_bytes())
        await listener.set_tls()
        with Peer(listener) as one, Peer(listener) as other:
            assert "other.example.org" in subject(await one.shake())
            own.write_text("spoilt")
            with pytest.raises(InvalidOption, match="holds no certificate"):
                await listener.set_tls()
            assert "other.example.org" in subject(await other.shake())


async def test_a_change_that_is_wrong_changes_nothing(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        before = listener.options
        for changes in ({"dtls": {"verify": "required"}}, {"dtls": None}, {"tls": {"certfile": dtls.certfile}}):
            with pytest.raises(InvalidOption):
                await listener.set_options(**changes)
        assert listener.options == before
        with Peer(listener) as peer:
            assert await (await peer.shake()).ask(b"hello") == b"hello"


@pytest.mark.parametrize(
    ("address", "given", "words"),
    [
        ("dtls://127.0.0.1:0", (), r"dtls is None.*needs the option dtls|needs the option dtls"),
        ("udp://127.0.0.1:0", ("dtls",), "it does nothing for udp://127.0.0.1:0. Write dtls://127.0.0.1:0."),
        ("127.0.0.1:0", ("dtls",), "it does nothing for 127.0.0.1:0. Give the option tls."),
        ("dtls://127.0.0.1:0", ("tls", "dtls"), "it does nothing for dtls://127.0.0.1:0. Give the option dtls."),
    ],
)
async def test_address_and_options_have_to_agree(
    dtls: DtlsOptions, tls: Any, address: str, given: tuple[str, ...], words: str
) -> None:
    options: dict[str, Any] = {"tls": tls, "dtls": dtls}
    with pytest.raises(InvalidOption, match=words):
        Listener("dtls", address, echo, ListenerOptions(**{name: options[name] for name in given}))


async def test_ids_of_sessions_cannot_be_read_of_what_is_encrypted(dtls: DtlsOptions) -> None:
    options = ListenerOptions(dtls=dtls, udp=UdpOptions(session_id=lambda datagram: datagram[:4]))
    with pytest.raises(InvalidOption, match=r"^udp\.session_id .*what comes is encrypted"):
        Listener("dtls", "dtls://127.0.0.1:0", echo, options)
