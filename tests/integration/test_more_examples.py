"""The small programs in `examples/`, and those that speak the protocols of others, each against a real client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import IO, TYPE_CHECKING, cast

import pytest
import trustme
from tests.ports import steady_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RequireTool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TIMEOUT_S = 90
KEY = "00112233445566778899aabbccddeeff"


class Example:
    """A running program of the folder."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self.process = process
        self.out = cast("IO[str]", process.stdout)
        self.ports = [self._read_port() for _ in range(count)]

    @property
    def port(self) -> int:
        """Where its first listener listens."""
        return self.ports[0]

    def _read_port(self) -> int:
        line = self.out.readline()
        assert line.startswith("listening on "), line
        return int(line.rpartition(":")[2])

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A client."""
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S, (source, 0))


@contextmanager
def example(name: str, *arguments: object, listeners: int = 1) -> Iterator[Example]:
    """Run a program until SIGTERM, which ends it in order, without a word on stderr."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield Example(running, listeners)
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=TIMEOUT_S)
            assert (running.returncode, errors) == (0, "")
        finally:
            running.kill()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem, server.key and client.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server.key")
    authority.issue_cert("anna@example.org", common_name="anna").private_key_and_cert_chain_pem.write_to_path(
        folder / "client.pem"
    )
    return folder


def test_every_program_is_short_is_in_the_table_and_says_how_to_try_it() -> None:
    table = (EXAMPLES / "README.md").read_text()
    for file in sorted(EXAMPLES.glob("*.py")):
        lines = file.read_text().splitlines()
        assert len(lines) < 150, file.name
        assert f"`{file.name}`" in table
        assert len([line for line in lines[:8] if re.match(r"(python|uvicorn|kill|\w[\w-]*) .*\w", line)]) >= 3, (
            file.name
        )


@pytest.mark.parametrize("name", ["simple.py", "callbacks.py"])
def test_an_echo_sends_everything_back(name: str) -> None:
    with example(name, "127.0.0.1:0") as server, server.connect() as client:
        for message in (b"hello", b"x" * 100_000):
            client.sendall(message)
            received = b""
            while len(received) < len(message):
                received += client.recv(65_536)
            assert received == message


def test_a_session_remembers_what_its_client_has_said_and_ends_with_it() -> None:
    with example("sessions.py", "127.0.0.1:0") as server, server.connect() as client, server.connect() as other:
        lines = client.makefile("rb")
        client.sendall(b"add 40\nadd 2\nadd x\nun")
        assert [lines.readline() for _ in range(3)] == [b"40\n", b"42\n", b"what?\n"]
        other.sendall(b"total\n")
        assert other.recv(100) == b"0\n"
        client.sendall(b"do\ntotal\n")
        assert [lines.readline() for _ in range(2)] == [b"40\n", b"40\n"]
        server.process.send_signal(signal.SIGTERM)
        assert lines.readline() == b"goodbye: 40\n"
        assert lines.readline() == b""
        lines.close()


def test_a_client_with_a_certificate_is_known_by_its_name(files: Path) -> None:
    given = ("tls://127.0.0.1:0", files / "server.pem", files / "server.key", files / "ca.pem")
    with example("tls_echo.py", *given) as server:
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        context.load_cert_chain(files / "client.pem")
        for _ in range(2):
            with context.wrap_socket(server.connect(), server_hostname="localhost") as client:
                assert re.fullmatch(rb"TLSv1\.3 \S+ with .*anna.*\n", client.recv(1000))
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
            server.process.send_signal(signal.SIGHUP)
            assert server.out.readline() == "the certificate was read again\n"


def test_a_server_behind_haproxy_knows_who_its_clients_are(require_tool: RequireTool) -> None:
    haproxy, front = require_tool("haproxy"), steady_port()
    with example("proxy_protocol.py", "127.0.0.1:0") as server:
        environment = {**os.environ, "LISTEN_PORT": str(front), "SERVER_PORT": str(server.port)}
        command = [haproxy, "-db", "-f", str(EXAMPLES / "proxy_protocol.cfg")]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as proxy:
            try:
                answer = b""
                while not answer and proxy.poll() is None:
                    try:
                        with socket.create_connection(("127.0.0.1", front), TIMEOUT_S, ("127.0.0.7", 0)) as client:
                            answer = client.recv(1000)
                    except ConnectionRefusedError:  # it does not listen yet
                        continue
                assert answer == b"you are 127.0.0.7, by way of 127.0.0.1\n"
            finally:
                proxy.kill()


def test_each_peer_of_datagrams_gets_its_own_back() -> None:
    with example("udp_echo.py", "udp://127.0.0.1:0") as server:
        for message in (b"hello", b"x" * 9000):
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.settimeout(TIMEOUT_S)
                client.connect(("127.0.0.1", server.port))
                client.send(message)
                assert client.recv(65_536) == message


@pytest.mark.parametrize("by", ["certificate", "key"])
def test_openssl_gets_its_line_back_over_dtls(by: str, files: Path, require_tool: RequireTool) -> None:
    given: list[object] = [f"sensor-1={KEY}"]
    options = ["-psk_identity", "sensor-1", "-psk", KEY, "-cipher", "PSK"]
    if by == "certificate":
        given = [files / "server.pem", files / "server.key"]
        options = ["-CAfile", str(files / "ca.pem"), "-verify_return_error"]
    with example("dtls_echo.py", "dtls://127.0.0.1:0", *given) as server:
        command = [require_tool("openssl"), "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{server.port}", *options]
        with subprocess.Popen(
            [*command, "-quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as client:
            try:
                stdin, stdout = cast("IO[str]", client.stdin), cast("IO[str]", client.stdout)
                stdin.write("hello\n")
                stdin.flush()
                assert stdout.readline() == "hello\n"
            finally:
                client.kill()


def test_redis_is_reached_through_the_gateway(files: Path, tmp_path: Path, require_tool: RequireTool) -> None:
    port = steady_port()
    redis = [require_tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*redis, "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as upstream:
        try:
            assert any("Ready to accept connections" in line for line in cast("IO[str]", upstream.stdout))
            given = ("tls://127.0.0.1:0", f"127.0.0.1:{port}", files / "server.pem", files / "server.key")
            with example("redis_gateway.py", *given) as gateway:
                ask = [require_tool("redis-cli"), "-p", str(gateway.port), "--tls", "--cacert", str(files / "ca.pem")]
                for words, answer in (("set hall 21", "OK\n"), ("get hall", "21\n")):
                    done = subprocess.run(
                        [*ask, *words.split()], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
                    )
                    assert done.stdout == answer
        finally:
            upstream.kill()


def test_messages_of_syslog_come_over_datagrams_and_streams(files: Path, require_tool: RequireTool) -> None:
    logger = [require_tool("logger"), "--server", "127.0.0.1", "--tag", "house", "--priority", "daemon.warning"]
    addresses = ("udp://127.0.0.1:0", "127.0.0.1:0", "tls://127.0.0.1:0")
    with example("syslog.py", *addresses, files / "server.pem", files / "server.key", listeners=3) as server:
        udp, tcp, tls = server.ports
        for options in (["--udp", "--port", udp], ["--tcp", "--port", tcp], ["--tcp", "--port", tcp, "--octet-count"]):
            text = f"over {options[0]}{options[-1] if len(options) == 4 else ''}"
            subprocess.run([*logger, *map(str, options), text], timeout=TIMEOUT_S, check=True)
            told = json.loads(server.out.readline())
            assert (told["client"], told["facility"], told["severity"]) == ("127.0.0.1", 3, "warning")
            assert "house" in told["message"]
            assert told["message"].endswith(text)
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        with context.wrap_socket(socket.create_connection(("127.0.0.1", tls)), server_hostname="localhost") as client:
            client.sendall(b"10 <165>1 abc11 <34>1 \xe2\x82\xac uv")
            told = [json.loads(server.out.readline()) for _ in range(2)]
            assert [(each["severity"], each["message"]) for each in told] == [
                ("notice", "1 abc"),
                ("critical", "1 \u20ac u"),
            ]


def test_players_see_each_other_move_at_the_next_tick() -> None:
    with example("game.py", "127.0.0.1:0") as server, server.connect() as first, server.connect() as second:
        seen = second.makefile("rb")
        players: dict[str, list[int]] = {}
        while len(players) < 2:
            players = json.loads(seen.readline())["players"]
        assert [*players.values()] == [[40, 12], [40, 12]]
        first.sendall(b"l\n")
        while sorted(players.values()) != [[39, 12], [40, 12]]:
            players = json.loads(seen.readline())["players"]
        ticks = [json.loads(seen.readline())["tick"] for _ in range(5)]
        assert ticks == sorted(set(ticks))
        first.sendall(b"q\n")
        while len(players) > 1:
            players = json.loads(seen.readline())["players"]
        seen.close()


def test_lines_go_to_those_in_the_same_room() -> None:
    with example("chat.py", "127.0.0.1:0") as server, server.connect() as anna, server.connect() as ben:
        for client in (anna, ben):
            client.sendall(b"/join kitchen\n")
        while not select([ben], [], [], 0.1)[0]:  # until both are there
            anna.sendall(b"dinner\n")
        with server.connect() as cleo, ben.makefile("rb") as lines:
            cleo.sendall(b"is anybody in the hall?\n/join kitchen\nhere I am\n")
            assert {*iter(lines.readline, b"here I am\n")} == {b"dinner\n"}
