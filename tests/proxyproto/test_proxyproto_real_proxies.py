"""Headers captured live from HAProxy and nginx, and ours given to them.

Every listening socket is made here and handed over, so no port is guessed and nothing has to be waited for.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trustme

from esockd_proxyproto import (
    Command,
    Decoder,
    Endpoint,
    Family,
    ProxyHeader,
    Tlv,
    TlvType,
    Transport,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIMEOUT_S = 90
MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")

HAPROXY_CONFIG = """
defaults
    mode tcp
    timeout client 20s
    timeout server 20s
    timeout connect 20s
    unique-id-format %ci-%cp
listen v1
    bind fd@{v1}
    server capture {capture} send-proxy
listen v1-ipv6
    bind fd@{v1_ipv6} v6only
    server capture {capture} send-proxy
listen v2
    bind fd@{v2}
    server capture {capture} send-proxy-v2
listen v2-ipv6
    bind fd@{v2_ipv6} v6only
    server capture {capture} send-proxy-v2
listen v2-checksum
    bind fd@{v2_checksum}
    server capture {capture} send-proxy-v2 proxy-v2-options crc32c,unique-id
listen v2-tls
    bind fd@{v2_tls} ssl crt {certificate} ca-file {authority} verify optional alpn h2,http/1.1
    server capture {capture} send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c
listen health
    bind fd@{health}
    server capture {health_capture} check inter 50 check-send-proxy send-proxy-v2
listen receiver
    mode http
    bind fd@{receiver} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
listen tlv-receiver
    mode http
    bind fd@{tlv_receiver} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[fc_pp_authority] %[fc_pp_unique_id]"
"""

NGINX_CONFIG = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
load_module {module};
events {{ }}
stream {{
    server {{ listen {v1}; proxy_pass {capture}; proxy_protocol on; }}
    server {{ listen {v1_ipv6}; proxy_pass {capture}; proxy_protocol on; }}
    server {{
        listen {receiver} proxy_protocol;
        return "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    }}
}}
"""


def listening(stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = stack.enter_context(socket.create_server((host, 0), family=family))
    listener.settimeout(TIMEOUT_S)
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Proxy:
    """A running proxy, its sockets by name, and the socket on which what it sends is captured."""

    def __init__(self, listeners: dict[str, socket.socket], authority: trustme.CA | None = None) -> None:
        self.listeners = listeners
        self.authority = authority

    def connect(self, name: str) -> socket.socket:
        return socket.create_connection(self.listeners[name].getsockname()[:2], timeout=TIMEOUT_S)

    def capture(self) -> tuple[ProxyHeader, bytes]:
        """What arrives on one connection: its header, and everything behind it."""
        connection, header = self.accept("capture")
        with connection:
            return header, b"".join(iter(lambda: connection.recv(65536), b""))

    def accept(self, name: str) -> tuple[socket.socket, ProxyHeader]:
        """The next connection, its header taken off."""
        decoder = Decoder()
        connection, _ = self.listeners[name].accept()
        connection.settimeout(TIMEOUT_S)
        while (data := connection.recv(decoder.missing)) and not decoder.feed(data):
            pass
        assert decoder.header is not None, decoder.received
        return connection, decoder.header

    def relay(self, name: str) -> tuple[ProxyHeader, bytes, socket.socket]:
        """Send one message through the proxy; give what arrives, and the client's socket (closed by then)."""
        with self.connect(name) as client:
            source, destination = client.getsockname()[:2], client.getpeername()[:2]
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            header, rest = self.capture()
        if header.source is not None:
            assert (header.source, header.destination) == (source, destination)
        return header, rest, client

    def answer(self, name: str, data: bytes) -> str:
        with self.connect(name) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]) -> Iterator[Proxy]:
    program = require_tool("haproxy")
    folder = tmp_path_factory.mktemp("haproxy")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost", common_name="proxy").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    names = ["v1", "v2", "v2_checksum", "v2_tls", "health", "receiver", "tlv_receiver", "capture", "health_capture"]
    with ExitStack() as stack:
        listeners = {name: listening(stack) for name in names}
        listeners |= {name: listening(stack, "::1") for name in ("v1_ipv6", "v2_ipv6")}
        fields: dict[str, object] = {name: listener.fileno() for name, listener in listeners.items()}
        fields |= {name: address_of(listeners[name]) for name in ("capture", "health_capture")}
        config = folder / "haproxy.cfg"
        config.write_text(
            HAPROXY_CONFIG.format(certificate=folder / "server.pem", authority=folder / "ca.pem", **fields)
        )
        descriptors = [listener.fileno() for name, listener in listeners.items() if "capture" not in name]
        with running([program, "-db", "-q", "-f", str(config)], descriptors, folder):
            yield Proxy(listeners, authority)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]) -> Iterator[Proxy]:
    program = require_tool("nginx")
    modules = [f"{folder}/ngx_stream_module.so" for folder in MODULE_FOLDERS]
    module = next(filter(os.path.exists, modules), None)
    if module is None:
        pytest.skip("needs nginx's stream module, which is not installed (.ci/run lists the Debian packages)")
    folder = tmp_path_factory.mktemp("nginx")
    with ExitStack() as stack:
        listeners = {name: listening(stack) for name in ("v1", "receiver", "capture")}
        listeners["v1_ipv6"] = listening(stack, "::1")
        config = folder / "nginx.conf"
        addresses = {name: address_of(listener) for name, listener in listeners.items()}
        config.write_text(NGINX_CONFIG.format(module=module, **addresses))
        descriptors = [listeners[name].fileno() for name in ("v1", "v1_ipv6", "receiver")]
        # The way in which one nginx hands its sockets to its successor (nginx: "Upgrading Executable on the Fly").
        environment = {"NGINX": "".join(f"{descriptor};" for descriptor in descriptors)}
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]
        with running(command, descriptors, folder, environment):
            yield Proxy(listeners)


def running(
    command: list[str], descriptors: list[int], folder: Path, environment: dict[str, str] | None = None
) -> ExitStack:
    """Run a program until the with block ends; show its output if the tests in it fail."""
    stack = ExitStack()
    log = stack.enter_context((folder / "log").open("wb"))
    program = subprocess.Popen(
        command, stdout=log, stderr=log, pass_fds=descriptors, env={**os.environ, **(environment or {})}
    )

    def stop() -> None:
        program.terminate()
        try:
            program.wait(TIMEOUT_S)
        finally:
            program.kill()
            print((folder / "log").read_text(errors="replace"))

    stack.callback(stop)
    return stack


@pytest.mark.parametrize("name", ["v1", "v1_ipv6"])
def test_haproxy_sends_version_1(haproxy: Proxy, name: str) -> None:
    header, rest, _ = haproxy.relay(name)
    family = Family.INET6 if "ipv6" in name else Family.INET
    assert (header.version, header.family, header.transport) == (1, family, Transport.STREAM)
    assert rest == b"hello"


@pytest.mark.parametrize("name", ["v2", "v2_ipv6"])
def test_haproxy_sends_version_2(haproxy: Proxy, name: str) -> None:
    header, rest, _ = haproxy.relay(name)
    family = Family.INET6 if "ipv6" in name else Family.INET
    assert (header.version, header.command, header.family) == (2, Command.PROXY, family)
    assert (header.transport, header.tlvs, rest) == (Transport.STREAM, (), b"hello")


def test_haproxy_sends_a_checksum_that_is_right(haproxy: Proxy) -> None:
    header, rest, _ = haproxy.relay("v2_checksum")
    assert isinstance(header.source, Endpoint)
    assert [tlv.type for tlv in header.tlvs] == [TlvType.CRC32C, TlvType.UNIQUE_ID]
    assert header.unique_id == f"{header.source.host}-{header.source.port}".encode()
    assert rest == b"hello"


@pytest.mark.parametrize("with_certificate", [False, True])
def test_haproxy_tells_of_the_clients_tls(haproxy: Proxy, with_certificate: bool) -> None:
    assert haproxy.authority is not None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    haproxy.authority.configure_trust(context)
    if with_certificate:
        haproxy.authority.issue_cert("client.example", common_name="Zoe").configure_cert(context)
    with (
        haproxy.connect("v2_tls") as client,
        context.wrap_socket(client, server_hostname="localhost", suppress_ragged_eofs=True) as tls,
    ):
        tls.sendall(b"hello")
        version, cipher = tls.version(), tls.cipher()
        client_end = tls.getsockname()
        tls.shutdown(socket.SHUT_WR)
        header, rest = haproxy.capture()
    assert header.source == client_end
    assert header.crc32c is not None
    assert (header.alpn, header.authority) == (b"h2", "localhost")
    info = header.ssl
    assert info is not None
    assert cipher is not None
    assert (info.is_tls, info.is_verified) == (True, with_certificate)
    assert (info.version, info.cipher) == (version, cipher[0])
    assert info.common_name == ("Zoe" if with_certificate else None)
    assert (info.key_algorithm, info.signature_algorithm) == ("EC256", "ecdsa-with-SHA256")
    assert rest == b"hello"


def test_haproxy_sends_local_with_its_health_checks(haproxy: Proxy) -> None:
    connection, header = haproxy.accept("health_capture")
    connection.close()
    assert (header.version, header.command, header.source) == (2, Command.LOCAL, None)


SENT = [
    (Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)),
    (Endpoint("2001:db8::1", 1), Endpoint("::ffff:192.0.2.1", 65535)),
]


@pytest.mark.parametrize(("source", "destination"), SENT)
@pytest.mark.parametrize("version", [1, 2])
def test_haproxy_takes_our_headers(haproxy: Proxy, version: int, source: Endpoint, destination: Endpoint) -> None:
    header = ProxyHeader(version, source=source, destination=destination)
    data = encode(header, checksum=version == 2, pad_to=300 if version == 2 else 0)
    answer = haproxy.answer("receiver", data + b"GET / HTTP/1.0\r\n\r\n")
    assert answer.endswith(f"\r\n\r\n{source.host} {source.port} {destination.host} {destination.port}")


def test_haproxy_takes_our_tlvs(haproxy: Proxy) -> None:
    tlvs = [Tlv(TlvType.AUTHORITY, b"www.example"), Tlv(TlvType.UNIQUE_ID, b"id-7")]
    data = encode(ProxyHeader(source=SENT[0][0], destination=SENT[0][1], tlvs=tlvs), checksum=True)
    assert haproxy.answer("tlv_receiver", data + b"GET / HTTP/1.0\r\n\r\n").endswith("\r\n\r\nwww.example id-7")


def test_haproxy_refuses_a_checksum_that_is_wrong(haproxy: Proxy) -> None:
    data = encode(ProxyHeader(source=SENT[0][0], destination=SENT[0][1]), checksum=True)
    broken = data[:-1] + bytes([data[-1] ^ 1])
    try:
        answer = haproxy.answer("receiver", broken + b"GET / HTTP/1.0\r\n\r\n")
    except ConnectionResetError:
        answer = ""
    assert answer == ""


@pytest.mark.parametrize("name", ["v1", "v1_ipv6"])
def test_nginx_sends_version_1(nginx: Proxy, name: str) -> None:
    header, rest, _ = nginx.relay(name)
    assert (header.version, header.family) == (1, Family.INET6 if "ipv6" in name else Family.INET)
    assert rest == b"hello"


@pytest.mark.parametrize(("source", "destination"), SENT)
@pytest.mark.parametrize("version", [1, 2])
def test_nginx_takes_our_headers(nginx: Proxy, version: int, source: Endpoint, destination: Endpoint) -> None:
    header = ProxyHeader(version, source=source, destination=destination)
    # nginx 1.22 refuses more than 107 bytes.
    data = encode(header, checksum=version == 2, pad_to=100 if version == 2 else 0)
    answer = nginx.answer("receiver", data)
    assert answer == f"{source.host} {source.port} {destination.host} {destination.port}"
