"""PROXY headers and TLS that change under open connections: never turned into plaintext, everybody judged."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSAttribute, TLSStream
from tests.core.conftest import HEADER, connect_stream, echo, open_by_source, until
from tests.core.listening.conftest import ask, is_refused

from esockd_core import InvalidOption, Listener, StreamConnection, TlsOptions, open_listener

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


AUTHORITY = trustme.CA()


async def name_peer(connection: StreamConnection) -> None:
    await connection.send(connection.peername[0].encode())


@pytest.mark.parametrize("limit", [None, 1])
async def test_proxy_headers_can_be_switched_on_and_off(handler: Handler, limit: int | None) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("name", "127.0.0.1:0", handler, max_connections_per_source=limit) as listener,
            await connect_stream(listener) as first,
        ):
            await ask(first)
            await listener.set_handler(name_peer)
            await listener.set_options(proxy_protocol={"trusted": ["127.0.0.0/8"]})
            async with await connect_stream(listener) as second:
                assert await ask(second, HEADER) == b"192.0.2.7"
            await until(lambda: len(listener.connections) == 1)
            await listener.set_options(proxy_protocol=False)
            async with await connect_stream(listener, "127.0.0.3") as third:
                assert await third.receive() == b"127.0.0.3"
            assert await ask(first) == b"hello"
        assert open_by_source(listener._admission) == {}
        assert listener.stats().current_connections == 0


async def test_a_connection_that_waits_for_its_header_goes_on_when_headers_are_switched_off() -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("name", "127.0.0.1:0", name_peer, proxy_protocol=True) as listener,
            await connect_stream(listener) as client,
        ):
            await client.send(HEADER[:9])
            await until(lambda: listener.stats().entering == 1)
            await listener.set_options(proxy_protocol=False)
            assert await ask(client, HEADER[9:]) == b"192.0.2.7"


async def test_tls_options_change_for_connections_to_come_and_never_turn_into_plaintext(tmp_path: Path) -> None:
    """esockd's t_update_tls_options; its set_max_connections left a TLS listener in plaintext."""
    for name in ("localhost", "changed.example.org"):
        AUTHORITY.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    tls = TlsOptions(certfile=tmp_path / "localhost.pem")
    with anyio.fail_after(20):
        async with open_listener("echo", "tls://127.0.0.1:0", echo, tls=tls) as listener:
            assert await presented(listener) == "localhost"
            await listener.set_options(max_connections=5)
            assert await presented(listener) == "localhost"
            with pytest.raises(InvalidOption, match="no certificate"):
                await listener.set_options(tls={"certfile": __file__})
            with pytest.raises(InvalidOption, match="needs the option tls"):
                await listener.set_options(tls=None)
            with pytest.raises(InvalidOption, match="needs the option tls"):
                await listener.reset_options(max_connections=7)
            assert await presented(listener) == "localhost"
            await listener.set_options(tls={"certfile": tmp_path / "changed.example.org.pem"})
            assert await presented(listener) == "changed.example.org"
            await listener.reset_options(tls=tls)
            assert await presented(listener) == "localhost"


async def test_a_plain_listener_takes_no_tls_option(tmp_path: Path) -> None:
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with pytest.raises(InvalidOption, match="tls://"):
            await listener.set_options(tls=TlsOptions(certfile=tmp_path / "own.pem"))


async def test_certificates_read_again_are_not_forgotten_when_other_options_change(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
    with anyio.fail_after(20):
        async with open_listener("echo", "tls://127.0.0.1:0", echo, tls=TlsOptions(certfile=own)) as listener:
            AUTHORITY.issue_cert("renewed.example.org").private_key_and_cert_chain_pem.write_to_path(str(own))
            await listener.set_tls()
            await listener.set_options(proxy_protocol="use")
            assert await presented(listener) == "renewed.example.org"


async def presented(listener: Listener) -> str:
    """The name in the certificate that a client is shown."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.check_hostname = False
    stream = await TLSStream.wrap(
        await connect_stream(listener), ssl_context=context, hostname="x", standard_compatible=False
    )
    async with stream:
        certificate: Any = stream.extra(TLSAttribute.peer_certificate)
    return str(certificate["subjectAltName"][0][1])


async def test_who_waits_for_its_header_is_judged_though_headers_are_switched_off() -> None:
    rules = ["deny 192.0.2.7"]
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True, access_rules=rules) as listener,
            await connect_stream(listener) as client,
        ):
            await until(lambda: listener.stats().entering == 1)
            await listener.set_options(proxy_protocol=False)
            await client.send(HEADER + b"hello")
            assert await is_refused(client)
            await until(lambda: listener.stats().shutdown_counts == {"source_forbidden": 1})
