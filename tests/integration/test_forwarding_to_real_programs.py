"""Forwarding to HAProxy, nginx, redis and OpenSSL."""

from __future__ import annotations

import json
import os
import socket
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream
from tests.integration.programs import running
from tests.ports import steady_port

from esockd_core import Listener, StreamConnection, TlsOptions, UpstreamTlsOptions, open_listener
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio

TIMEOUT_S = 90

# It takes the header, and passes on by a header of its own what it understood of it.
HAPROXY_CONFIG = """
defaults
    mode tcp
    timeout client 20s
    timeout server 20s
    timeout connect 20s
listen plain
    bind fd@{plain} accept-proxy
    server last {last} send-proxy-v2
listen tls
    bind fd@{tls} accept-proxy ssl crt {folder}/server.pem
    server last {last} send-proxy-v2-ssl proxy-v2-options authority
"""

NGINX_CONFIG = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .; scgi_temp_path .;
    server {{
        listen {entry} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port"; }}
    }}
}}
"""


@asynccontextmanager
async def gateway(handler: ForwardHandler, address: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(TIMEOUT_S):
        async with open_listener("gateway", address, handler, **options) as listener:
            yield listener


async def tell(connection: StreamConnection) -> None:
    """What the last in the row sees of the client, as one line."""
    tls, header = connection.tls, connection.proxy
    assert header is not None
    seen = [connection.peername, str(header.destination), None if tls is None else [tls.version, tls.server_name]]
    await connection.send(json.dumps(seen).encode() + b"\n")
    async for data in connection:
        await connection.send(data)


async def first_line(client: ByteStream) -> Any:
    await client.send(b"hello\n")
    received = b""
    while not received.endswith(b"\nhello\n"):
        received += await client.receive()
    return json.loads(received.partition(b"\n")[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_haproxy_reads_the_header_in_the_clear_and_before_tls(
    version: Any, folder: Path, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    program = require_tool("haproxy")
    async with AsyncExitStack() as stack:
        last = await stack.enter_async_context(open_listener("last", "127.0.0.1:0", tell, proxy_protocol=True))
        plain, tls = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        config = tmp_path / "haproxy.cfg"
        files = {"plain": plain.fileno(), "tls": tls.fileno(), "folder": folder}
        config.write_text(HAPROXY_CONFIG.format(last=f"127.0.0.1:{last.port}", **files))
        await stack.enter_async_context(running([program, "-db", "-q", "-f", str(config)], (plain, tls)))
        mine = UpstreamTlsOptions(ca_file=folder / "ca.pem")
        for handler, expected in (
            (ForwardHandler(plain.getsockname(), send_proxy=version), None),
            (
                ForwardHandler(f"tls://localhost:{tls.getsockname()[1]}", send_proxy=version, tls=mine),
                ["TLSv1.3", "localhost"],
            ),
        ):
            async with gateway(handler) as listener:
                assert listener.port is not None
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    local: Any = client.extra(anyio.abc.SocketAttribute.local_address)
                    assert await first_line(client) == [list(local), f"127.0.0.1:{listener.port}", expected]


async def test_nginx_reads_the_header(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    program = require_tool("nginx")
    with socket.create_server(("127.0.0.1", 0)) as entry:
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(entry=f"127.0.0.1:{entry.getsockname()[1]}"))
        command = [program, "-e", "stderr", "-p", str(tmp_path), "-c", str(config)]
        # The way in which one nginx hands its sockets to its successor.
        async with (
            running(command, (entry,), {"NGINX": f"{entry.fileno()};"}),
            gateway(ForwardHandler(entry.getsockname(), send_proxy="v1")) as listener,
        ):
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                local: Any = client.extra(anyio.abc.SocketAttribute.local_address)
                await client.send(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join([data async for data in client])
            assert answer.endswith(f"{local[0]} {local[1]} {listener.port}".encode())


async def test_redis_behind_a_gateway(folder: Path, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """By TLS in front, with pipelined requests and a value larger than every buffer, on a Unix socket behind."""
    program = require_tool("redis-server")
    path = f"{tmp_path}/redis.sock"
    command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
    value = os.urandom(6_000_000)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    async with running(command):
        with anyio.fail_after(TIMEOUT_S):
            while not await anyio.Path(path).exists():  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(0.02)
        tls = TlsOptions(certfile=folder / "server.pem")
        async with gateway(ForwardHandler(f"unix:{path}"), "tls://127.0.0.1:0", tls=tls) as listener:
            assert listener.port is not None
            raw = await anyio.connect_tcp("127.0.0.1", listener.port)
            async with await TLSStream.wrap(raw, hostname="localhost", ssl_context=context) as client:
                await client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(value), value))
                await client.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" + b"PING\r\n" * 3 + b"QUIT\r\n")
                expected = b"+OK\r\n$%d\r\n%b\r\n" % (len(value), value) + b"+PONG\r\n" * 3 + b"+OK\r\n"
                received = bytearray()
                while len(received) < len(expected):
                    received += await client.receive()
                assert received == expected


async def test_openssl_as_an_upstream(folder: Path, require_tool: Callable[[str], str]) -> None:
    openssl = require_tool("openssl")
    port = steady_port()
    command = [
        openssl,
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-cert",
        str(folder / "server.pem"),
        "-rev",
        "-quiet",
    ]
    mine = UpstreamTlsOptions(ca_file=folder / "ca.pem", server_name="localhost")
    async with running(command), gateway(ForwardHandler(f"tls://127.0.0.1:{port}", tls=mine)) as listener:
        assert listener.port is not None
        while True:  # until it listens; `gateway` bounds it
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                with suppress(anyio.EndOfStream):
                    await client.send(b"hello\n")
                    assert await client.receive() == b"olleh\n"
                    break
            await anyio.sleep(0.05)
