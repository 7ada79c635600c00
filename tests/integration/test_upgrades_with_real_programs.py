"""Listeners behind HAProxy and nginx, and spoken to by OpenSSL and curl."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from tests.integration.programs import running

from esockd_core import CallbackHandler, Listener, ProxyOptions, StreamConnection, TlsOptions, open_listener
from esockd_proxyproto import Command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from esockd_core import Handler

pytestmark = pytest.mark.anyio

TIMEOUT_S = 90
MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")

HAPROXY_CONFIG = """
defaults
    mode tcp
    timeout client 20s
    timeout server 20s
    timeout connect 20s
listen v1
    bind fd@{v1}
    server esockd {plain} send-proxy
listen v2
    bind fd@{v2}
    server esockd {plain} send-proxy-v2
listen v2-tls-ended-here
    bind fd@{ended} ssl crt {folder}/server.pem ca-file {folder}/ca.pem verify optional alpn mqtt
    server esockd {plain} send-proxy-v2-ssl-cn proxy-v2-options authority,ssl,cert-cn,ssl-cipher
listen v2-then-tls
    bind fd@{passed}
    server esockd {tls} send-proxy-v2
"""

CHECK_CONFIG = """
defaults
    mode tcp
    timeout client 20s
    timeout server 20s
    timeout connect 20s
listen checked
    bind fd@{entry}
    option tcp-check
    tcp-check connect send-proxy
    tcp-check send hello
    tcp-check expect string hello
    server esockd {plain} check inter 50 send-proxy-v2
listen knocked-at
    bind fd@{other}
    server esockd {plain} check inter 50 send-proxy-v2
"""

NGINX_CONFIG = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
load_module {module};
events {{ }}
stream {{
    server {{ listen {entry}; proxy_pass {plain}; proxy_protocol on; }}
}}
"""


def facts(connection: StreamConnection) -> bytes:
    """What a handler sees of its client, as one line."""
    tls, certificate = connection.tls, None if connection.tls is None else connection.tls.peer_certificate
    seen: dict[str, Any] = {
        "peer": connection.peername,
        "socket": connection.socket_peername,
        "version": None if connection.proxy is None else connection.proxy.version,
        "tls": None if tls is None else [tls.version, tls.server_name, tls.alpn, tls.ended_at_proxy],
        "name": None if certificate is None else certificate.common_name,
    }
    return json.dumps(seen).encode() + b"\n"


async def tell(connection: StreamConnection) -> None:
    await connection.send(facts(connection))
    async for data in connection:
        await connection.send(data)


class Tell(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(facts(connection))

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


@pytest.fixture(params=[tell, Tell()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    chosen: Handler = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, server.pem and client.pem."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    issued = {"server": authority.issue_cert("localhost"), "client": authority.issue_cert("a@b.org", common_name="Zoe")}
    for name, certificate in issued.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / f"{name}.pem"))
    return directory


@asynccontextmanager
async def serving(handler: Handler, address: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(TIMEOUT_S):
        async with open_listener("real", address, handler, **options) as listener:
            yield listener


def entries(count: int) -> list[socket.socket]:
    return [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]


def place(listener: Listener) -> str:
    return f"127.0.0.1:{listener.port}"


async def first_line(entry: socket.socket, question: bytes = b"") -> tuple[dict[str, Any], object, bytes]:
    """What the handler tells of a client at this entry, that client's own address, and the echo of its question."""
    async with await anyio.connect_tcp(*entry.getsockname()) as client:
        await client.send(question or b"\n")
        received = b""
        while not received.endswith(b"\n" + (question or b"\n")):
            received += await client.receive()
        line, _, echo = received.partition(b"\n")
        return json.loads(line), client.extra(anyio.abc.SocketAttribute.local_address), echo


async def test_haproxy_in_front(
    handler: Handler, folder: Path, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """Both versions of the header, TLS that ends at the proxy, and TLS that goes through it behind the header."""
    program, openssl = require_tool("haproxy"), require_tool("openssl")
    options: dict[str, Any] = {"proxy_protocol": ProxyOptions(trusted=["127.0.0.1"])}
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(serving(handler, **options))
        server_tls = TlsOptions(certfile=folder / "server.pem")
        tls = await stack.enter_async_context(serving(handler, "tls://127.0.0.1:0", tls=server_tls, **options))
        sockets = dict(zip(("v1", "v2", "ended", "passed"), entries(4), strict=True))
        for entry in sockets.values():
            stack.enter_context(entry)
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            HAPROXY_CONFIG.format(
                plain=place(plain),
                tls=place(tls),
                folder=folder,
                **{name: entry.fileno() for name, entry in sockets.items()},
            )
        )
        await stack.enter_async_context(running([program, "-db", "-q", "-f", str(config)], list(sockets.values())))
        for version, name in enumerate(("v1", "v2"), start=1):
            seen, client, echo = await first_line(sockets[name], b"hello\n")
            assert tuple(seen["peer"]) == client
            assert seen["socket"][0] == "127.0.0.1"
            assert (seen["version"], seen["tls"], echo) == (version, None, b"hello\n")
        ended = await ask_with_openssl(openssl, folder, sockets["ended"].getsockname()[1], "-alpn", "mqtt")
        assert ended["tls"] == ["TLSv1.3", "localhost", "mqtt", True]
        assert ended["name"] == "Zoe"
        passed = await ask_with_openssl(openssl, folder, sockets["passed"].getsockname()[1])
        assert passed["tls"] == ["TLSv1.3", "localhost", None, False]
        assert passed["version"] == 2


async def ask_with_openssl(openssl: str, folder: Path, port: int, *arguments: str) -> dict[str, Any]:
    """The first line that OpenSSL's client receives; it checks the listener's certificate and shows its own."""
    command = [
        openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-quiet", "-no_ign_eof",
        "-CAfile", str(folder / "ca.pem"), "-verify_return_error", "-verify_hostname", "localhost",
        "-cert", str(folder / "client.pem"), *arguments,
    ]  # fmt: skip
    async with await anyio.open_process(command, stderr=None) as program:
        assert program.stdout is not None
        received = b""
        while b"\n" not in received:
            received += await program.stdout.receive()
        with suppress(ProcessLookupError):
            program.terminate()
        seen: dict[str, Any] = json.loads(received.partition(b"\n")[0])
        return seen


async def test_haproxy_checks_the_health_of_a_listener_without_a_word_in_its_log(
    tmp_path: Path, require_tool: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    local: list[StreamConnection] = []

    async def note(connection: StreamConnection) -> None:
        local.append(connection)
        async for data in connection:
            await connection.send(data)

    program, (entry, other) = require_tool("haproxy"), entries(2)
    with entry, other:
        async with serving(note, proxy_protocol=ProxyOptions(trusted=["127.0.0.1"])) as listener:
            config = tmp_path / "haproxy.cfg"
            config.write_text(CHECK_CONFIG.format(plain=place(listener), entry=entry.fileno(), other=other.fileno()))
            async with running([program, "-db", "-q", "-f", str(config)], [entry, other]):
                # A check that only connects resets the connection, mostly before it is accepted.
                while len(local) < 3 or listener.stats().closed_early < 3:  # noqa: ASYNC110 - `serving` bounds it
                    await anyio.sleep(0.02)
    assert all(connection.peername == connection.socket_peername for connection in local)
    assert {connection.proxy.command for connection in local if connection.proxy is not None} == {Command.LOCAL}
    assert not caplog.records


async def test_nginx_in_front(handler: Handler, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    program = require_tool("nginx")
    module = next(filter(os.path.exists, (f"{folder}/ngx_stream_module.so" for folder in MODULE_FOLDERS)), None)
    if module is None:
        pytest.skip("needs nginx's stream module, which is not installed (.ci/run lists the Debian packages)")
    async with serving(handler, proxy_protocol=ProxyOptions(trusted=["127.0.0.1"])) as listener:
        with entries(1)[0] as entry:
            config = tmp_path / "nginx.conf"
            entry_address = f"127.0.0.1:{entry.getsockname()[1]}"
            config.write_text(NGINX_CONFIG.format(module=module, entry=entry_address, plain=place(listener)))
            command = [program, "-e", "stderr", "-p", str(tmp_path), "-c", str(config)]
            # The way in which one nginx hands its sockets to its successor.
            async with running(command, [entry], {"NGINX": f"{entry.fileno()};"}):
                seen, client, echo = await first_line(entry, b"hello\n")
    assert tuple(seen["peer"]) == client
    assert (seen["version"], echo) == (1, b"hello\n")


@pytest.mark.parametrize(("version", "name"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
async def test_openssl_speaks_both_versions_and_shows_its_certificate(
    handler: Handler, folder: Path, require_tool: Callable[[str], str], version: str, name: str
) -> None:
    options = TlsOptions(certfile=folder / "server.pem", client_ca=folder / "ca.pem")
    openssl = require_tool("openssl")
    async with serving(handler, "tls://127.0.0.1:0", tls=options) as listener:
        assert listener.port is not None
        seen = await ask_with_openssl(openssl, folder, listener.port, version)
    assert seen["tls"] == [name, "localhost", None, False]
    assert seen["name"] == "Zoe"


@pytest.mark.parametrize("is_proxied", [False, True])
async def test_curl_fetches_a_page(folder: Path, require_tool: Callable[[str], str], is_proxied: bool) -> None:
    """With `--haproxy-protocol` it sends a header of version 1 before its handshake."""
    curl = require_tool("curl")

    async def page(connection: StreamConnection) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await connection.receive()
        body = facts(connection)
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        async for _ in connection:
            pass

    options = TlsOptions(certfile=folder / "server.pem", alpn=("http/1.1",))
    async with serving(page, "tls://127.0.0.1:0", tls=options, proxy_protocol=is_proxied) as listener:
        command = [
            curl, "--silent", "--show-error", "--max-time", "20", "--noproxy", "*",
            "--cacert", str(folder / "ca.pem"), "--resolve", f"localhost:{listener.port}:127.0.0.1",
            *(["--haproxy-protocol"] if is_proxied else []), f"https://localhost:{listener.port}/",
        ]  # fmt: skip
        result = await anyio.run_process(command)
    seen = json.loads(result.stdout)
    assert seen["tls"][1:] == ["localhost", "http/1.1", False]
    assert seen["version"] == (1 if is_proxied else None)


async def test_openssl_may_not_renegotiate(handler: Handler, folder: Path, require_tool: Callable[[str], str]) -> None:
    """Each would cost the listener another handshake (CVE-2011-1473)."""
    openssl = require_tool("openssl")
    options = TlsOptions(certfile=folder / "server.pem")
    async with serving(handler, "tls://127.0.0.1:0", tls=options) as listener:
        command = [
            openssl,
            "s_client",
            "-connect",
            f"127.0.0.1:{listener.port}",
            "-tls1_2",
            "-CAfile",
            str(folder / "ca.pem"),
        ]
        async with await anyio.open_process(command, stderr=subprocess.STDOUT) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            said = b""
            while b"TLSv1.2" not in said or b'"peer"' not in said:
                said += await program.stdout.receive()
            await program.stdin.send(b"R\n")
            with suppress(anyio.EndOfStream):
                while True:
                    said += await program.stdout.receive()
        assert b"RENEGOTIATING" in said
        assert b"no renegotiation" in said
        assert listener.stats().handshakes.count == 1
