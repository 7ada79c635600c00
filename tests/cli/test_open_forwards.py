"""`esockd open forward:...`: a hardened gateway in one command, and the command lines that are none."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.ports import steady_port

from esockd_proxyproto import Endpoint, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import RunEsockd

TIMEOUT_S = 90


@contextmanager
def upstream(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Iterator[socket.socket]:
    """A server that sends each client back what it sent, once it has finished."""

    def serve(accepted: socket.socket) -> None:
        with accepted:
            received = b""
            while data := accepted.recv(65_536):
                received += data
            accepted.sendall(received)

    def accept() -> None:
        while True:
            try:
                accepted, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(accepted,), daemon=True).start()

    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT_S)


def ask(command: Any, port: int, question: bytes = b"hello") -> bytes:
    with command.connect(port) as client:
        client.sendall(question)
        client.shutdown(socket.SHUT_WR)
        answer: bytes = command.receive(client, 1_000_000)
        return answer


def test_one_command_is_a_gateway_with_rules_and_a_rate(start: Callable[..., Any], loop: str) -> None:
    with upstream() as server:
        target = f"forward:127.0.0.1:{server.getsockname()[1]}"
        rules = ("--allow", "127.0.0.1", "--max-conn-rate", "1/h burst 2")
        command = start("open", target, "127.0.0.1:0", *rules, "--loop", loop)
        first = command.read_line()
        port = int(first.rpartition(":")[2])
        assert first == f"forward listening on 127.0.0.1:{port}"
        assert ask(command, port) == b"hello"
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S, ("127.0.0.2", 0)) as stranger:
            assert stranger.recv(1) == b""
        assert ask(command, port, bytes(1_000_000)) == bytes(1_000_000)
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as third:
            assert third.recv(1) == b""
        status, _, err = command.stop()
    assert status == 0
    assert "2 accepted, 2 refused (closed_forbidden 1, closed_rate_limited 1)" in err


def test_a_unix_upstream_takes_over_from_one_that_refuses(start: Callable[..., Any], tmp_path: Path) -> None:
    refusing = steady_port()
    with upstream(socket.AF_UNIX, f"{tmp_path}/upstream"):
        command = start("open", f"forward:127.0.0.1:{refusing},unix:{tmp_path}/upstream", "127.0.0.1:0")
        assert ask(command, command.read_port()) == b"hello"
        status, _, err = command.stop()
    assert status == 0
    assert f"listener forward: upstream 127.0.0.1:{refusing} failed: Connection refused" in err


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_send_proxy_names_the_client(start: Callable[..., Any], version: str) -> None:
    with upstream() as server:
        target = f"forward:127.0.0.1:{server.getsockname()[1]}"
        command = start("open", target, "127.0.0.1:0", "--send-proxy", version)
        port = command.read_port()
        with command.connect(port) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            header, consumed = decode(answer := command.receive(client, 1_000_000))
            assert header.source == Endpoint(*client.getsockname())
            assert answer[consumed:] == b"hello"
    assert (header.version, header.destination) == (int(version[1]), Endpoint("127.0.0.1", port))


def test_tls_upstreams_are_verified_by_the_authorities_given(start: Callable[..., Any], tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    server = start("open", "echo", "tls://127.0.0.1:0", "--cert", "server.pem")
    target = f"forward:tls://127.0.0.1:{server.read_port()}"
    command = start("open", target, "127.0.0.1:0", "--upstream-ca", "ca.pem")
    assert ask(command, command.read_port()) == b"hello"
    stranger = start("open", target, "127.0.0.1:0")
    assert ask(stranger, stranger.read_port()) == b""
    assert "failed: TLS handshake: certificate verify failed" in stranger.stop()[2]


def test_a_client_that_finishes_and_an_upstream_that_is_silent_end_in_time(start: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"forward:127.0.0.1:{silent.getsockname()[1]}"
        command = start("open", target, "127.0.0.1:0", "--half-closed-timeout", "100ms", "--connect-timeout", "20s")
        with command.connect(command.read_port()) as client:
            client.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert "half_closed_timeout 1" in command.stop()[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forward", "0"], 'forward: the upstream is missing. Write "forward:HOST:PORT"'),
        (["forward:", "0"], 'forward: the upstream is missing. Write "forward:HOST:PORT"'),
        (["forward:localhost", "0"], 'bad upstream "localhost": the port is missing. Write "forward:HOST:PORT"'),
        (["forward::6379", "0"], 'bad upstream ":6379": the host is missing. Write "forward:HOST:PORT"'),
        (
            ["forward:localhost:99999", "0"],
            'bad upstream "localhost:99999": port 99999 is out of range: 0 to 65535. Write',
        ),
        (["forward:http://localhost:80", "0"], 'the scheme "http" is unknown: it is tcp, tls, udp or dtls.'),
        (["forward:*:80", "0"], 'bad upstream "*:80": nothing can connect to it. Write "forward:HOST:PORT"'),
        (["forward:localhost:1,,localhost:2", "0"], 'bad upstream ""'),
        (
            ["forward:localhost:1", "0", "--connect-timeout", "5"],
            "--connect-timeout 5: it takes a duration such as 30s",
        ),
        (
            ["forward:localhost:1", "0", "--connect-timeout", "none"],
            "--connect-timeout none: it takes a duration such as 30s, more than 0.",
        ),
        (["forward:localhost:1", "0", "--send-proxy", "v3"], "--send-proxy v3: it takes v1 or v2, or none."),
        (["forward:localhost:1", "0", "--upstream-ca", "ca.pem"], "--upstream-ca ca.pem: it does not exist"),
        (["echo", "0", "--send-proxy", "v1"], "--send-proxy is for the handler forward:HOST:PORT"),
        (["echo", "0", "--half-closed-timeout", "1s"], "--half-closed-timeout is for the handler forward:HOST:PORT"),
        (["forwrad:localhost:1", "0"], "forwrad"),
    ],
)
def test_a_gateway_to_nowhere_is_one_line_and_status_2(esockd: RunEsockd, arguments: list[str], message: str) -> None:
    status, out, err = esockd("open", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
