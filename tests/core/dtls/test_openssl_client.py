"""DTLS listeners against `openssl s_client`, which is another program, and mostly another version."""

from __future__ import annotations

import subprocess
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme
from tests.core.conftest import reasons
from tests.core.datagrams.udp import echo
from tests.core.tls_clients import AUTHORITY

from esockd_core import DatagramConnection, DtlsOptions, Listener, TlsCertificate, open_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import RequireTool

    from esockd_core import TlsInfo

pytestmark = pytest.mark.anyio

KEY = "00112233445566778899aabbccddeeff"


class Server:
    """A listener, and what its handler has seen."""

    def __init__(self, listener: Listener, openssl: str) -> None:
        self.listener = listener
        self.openssl = openssl
        self.seen: list[TlsInfo] = []

    async def talk(self, *options: str, question: bytes = b"hello\n") -> str:
        """Ask by s_client, wait for the answer, say goodbye; return all that it has printed."""
        command = [self.openssl, "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{self.listener.port}", *options]
        output = b""
        async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send(question)
            async for data in process.stdout:
                output += data
                if b"\n" + question in output:
                    await process.stdin.aclose()
            await process.wait()
        return output.decode(errors="replace")


@asynccontextmanager
async def serving(dtls: DtlsOptions, require_tool: RequireTool) -> AsyncIterator[Server]:
    openssl = require_tool("openssl")
    seen: list[TlsInfo] = []

    async def note(connection: DatagramConnection) -> None:
        assert connection.tls is not None
        seen.append(connection.tls)
        await echo(connection)

    with anyio.fail_after(120):
        async with open_listener("dtls", "dtls://127.0.0.1:0", note, dtls=dtls) as listener:
            server = Server(listener, openssl)
            server.seen = seen
            yield server


async def test_an_echo_with_names_and_protocols(certificates: Path, require_tool: RequireTool) -> None:
    other = TlsCertificate(certfile=certificates / "other.example.org.pem")
    options = DtlsOptions(certfile=certificates / "localhost.pem", sni={"other.example.org": other}, alpn=("coap", "x"))
    async with serving(options, require_tool) as server:
        trust = ("-CAfile", str(certificates / "ca.pem"), "-verify_return_error", "-alpn", "x,coap")
        output = await server.talk(*trust, "-servername", "other.example.org", "-verify_hostname", "other.example.org")
        assert "ALPN protocol: coap" in output
        assert "Verify return code: 0 (ok)" in output
        output = await server.talk(*trust, "-servername", "localhost", "-verify_hostname", "localhost")
        assert "Verify return code: 0 (ok)" in output
        assert [(each.version, each.server_name, each.alpn) for each in server.seen] == [
            ("DTLSv1.2", "other.example.org", "coap"),
            ("DTLSv1.2", "localhost", "coap"),
        ]
        assert await reasons(server.listener, 2) == {"normal": 2}


async def test_client_certificates_are_taken_and_refused(
    certificates: Path, tmp_path: Path, require_tool: RequireTool
) -> None:
    own, strange = tmp_path / "own.pem", tmp_path / "strange.pem"
    for file, authority in ((own, AUTHORITY), (strange, trustme.CA())):
        issued = authority.issue_cert("sensor7.example.org", common_name="sensor 7")
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    async with serving(options, require_tool) as server:
        await server.talk("-cert", str(own))
        [seen] = server.seen
        assert seen.peer_certificate is not None
        assert seen.peer_certificate.common_name == "sensor 7"
        assert "alert" in await server.talk("-cert", str(strange))
        assert "alert" in await server.talk()
        assert await reasons(server.listener, 3) == {"normal": 1, "tls_failed": 2}
        assert len(server.seen) == 1


async def test_keys_right_wrong_and_unknown(require_tool: RequireTool) -> None:
    options = DtlsOptions(psk={"sensor 7": bytes.fromhex(KEY)})
    async with serving(options, require_tool) as server:
        await server.talk("-psk_identity", "sensor 7", "-psk", KEY)
        assert [each.psk_identity for each in server.seen] == ["sensor 7"]
        output = await server.talk("-psk_identity", "sensor 8", "-psk", KEY)
        assert "unknown psk identity" in output
        assert await reasons(server.listener, 2) == {"normal": 1, "tls_failed": 1}
        await server.listener.set_options(handshake_timeout=0.5)
        async with anyio.create_task_group() as tasks:  # it tries for ever: DTLS passes over what is not genuine
            tasks.start_soon(partial(server.talk, "-psk_identity", "sensor 7", "-psk", KEY[::-1]))
            assert (await reasons(server.listener, 3))["handshake_timeout"] == 1
            tasks.cancel_scope.cancel()
        assert len(server.seen) == 1


async def test_a_large_certificate_through_a_small_mtu(certificates: Path, require_tool: RequireTool) -> None:
    options = DtlsOptions(certfile=certificates / "long-chain.pem", mtu=400)
    async with serving(options, require_tool) as server:
        assert "Verify return code" in await server.talk("-mtu", "428")
        assert len(server.seen) == 1


async def test_an_older_version_is_refused(dtls: DtlsOptions, require_tool: RequireTool) -> None:
    async with serving(dtls, require_tool) as server:
        command = [server.openssl, "s_client", "-dtls1", "-cipher", "DEFAULT:@SECLEVEL=0"]
        result = await anyio.run_process(
            [*command, "-connect", f"127.0.0.1:{server.listener.port}"], check=False, stderr=subprocess.STDOUT
        )
        assert b"protocol version" in result.stdout
        assert await reasons(server.listener) == {"tls_failed": 1}
