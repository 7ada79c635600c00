"""The programs in `examples/`, each against real clients."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from tests.conftest import RequireTool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TIMEOUT_S = 90


@contextmanager
def example(name: str, *arguments: object) -> Iterator[int]:
    """Run a program until SIGTERM, which ends it in order; give its port. It writes nothing to stderr."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            first_line = running.stdout.readline()
            assert first_line.startswith("listening on "), first_line
            yield int(first_line.rpartition(":")[2])
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=TIMEOUT_S)
            assert (running.returncode, errors) == (0, "")
        finally:
            running.kill()


def test_sixty_clients_who_leave_a_chat_at_once_cause_no_error() -> None:
    with example("chat.py", "127.0.0.1:0") as port, ExitStack() as clients:
        members = [clients.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT_S)) for _ in range(60)]
        for number, member in enumerate(members):
            member.sendall(b"hello from %d\n" % number)
        reading = members[0].makefile("rb")
        assert {reading.readline() for _ in members[1:]} == {b"hello from %d\n" % number for number in range(1, 60)}
        reading.close()
        for number, member in enumerate(members):
            member.sendall(b"goodbye from %d\nin the middle" % number)  # most have unread input: they reset
        clients.close()
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as late:
            late.sendall(b"is anybody here?\n")


@pytest.fixture(params=["tcp", "tls"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """Run the MQTT broker; give the options for Mosquitto's clients."""
    if request.param == "tcp":
        with example("mqtt_broker.py", "127.0.0.1:0") as port:
            yield ["-h", "127.0.0.1", "-p", str(port)]
        return
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    with example("mqtt_broker.py", "tls://127.0.0.1:0", tmp_path / "server.pem", tmp_path / "server.key") as port:
        yield ["-h", "127.0.0.1", "-p", str(port), "--cafile", str(tmp_path / "ca.pem")]


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquittos_clients_talk_through_the_broker(broker: list[str], qos: str, require_tool: RequireTool) -> None:
    publish = [require_tool("mosquitto_pub"), *broker, "-q", qos]
    subscribe = [require_tool("mosquitto_sub"), *broker, "-q", qos, "-W", str(TIMEOUT_S)]
    run(*publish, "-t", "house/hall/temperature", "-m", "21", "-r")
    wanted = [*subscribe, "-t", "house/+/temperature", "-t", "garden/#", "-C", "3", "-d", "-v"]
    with subprocess.Popen(wanted, stdout=subprocess.PIPE, text=True) as subscriber:
        try:
            assert subscriber.stdout is not None
            said = []
            for line in subscriber.stdout:
                said.append(line)
                if line == "house/hall/temperature 21\n":  # it was retained
                    run(*publish, "-t", "house/hall/light", "-m", "nobody asked for this")
                    run(*publish, "-t", "house/attic/temperature", "-m", "30")
                    run(*publish, "-t", "garden", "-s", stdin="x" * 100_000)
            assert "house/attic/temperature 30\n" in said
            assert said[-2] == f"garden {'x' * 100_000}\n" or said[-1] == f"garden {'x' * 100_000}\n"
            assert not any("nobody" in line for line in said)
            assert subscriber.wait(TIMEOUT_S) == 0
        finally:
            subscriber.kill()


def run(*command: str, stdin: str = "") -> None:
    subprocess.run(command, input=stdin, text=True, timeout=TIMEOUT_S, check=True)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(port: int) -> dict[str, Any]:
    """Ask the web application for the clients of its listener."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", "/clients", headers={"Connection": "close"})
    response = connection.getresponse()
    assert response.status == 200
    answer: dict[str, Any] = json.loads(response.read())
    connection.close()
    return answer


def test_a_web_server_with_the_fastapi_application_serves_its_listener_too_and_ends_both() -> None:
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "fastapi_lifespan:app"]
    environment = {**os.environ, "ECHO_ADDRESS": "127.0.0.1:0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stderr is not None
            line = next(line for line in running.stderr if "running on http://127.0.0.1:" in line)
            web_port = int(line.partition("127.0.0.1:")[2].split()[0])
            [address] = ask(web_port)["addresses"]
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), TIMEOUT_S) as client:
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
                [described] = ask(web_port)["clients"]
                assert described["peername"] == list(client.getsockname())
                running.send_signal(signal.SIGTERM)
                assert client.recv(100) == b"goodbye\n"
                assert client.recv(100) == b""
            _, errors = running.communicate(timeout=TIMEOUT_S)
            assert "Application shutdown complete" in errors
            assert "ERROR" not in errors
        finally:
            running.kill()


@pytest.mark.anyio
async def test_a_fastapi_application_has_a_listener_from_its_startup_to_its_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On every event loop: driven as a web server drives it, by its lifespan and a request."""
    monkeypatch.setenv("ECHO_ADDRESS", "127.0.0.1:0")
    app = load("fastapi_lifespan").app
    to_app, from_server = anyio.create_memory_object_stream[dict[str, Any]](10)
    to_server, from_app = anyio.create_memory_object_stream[dict[str, Any]](10)
    state: dict[str, Any] = {}

    async def call(**scope: Any) -> None:
        await app({"asgi": {"version": "3.0"}, "state": state, **scope}, from_server.receive, to_server.send)

    with anyio.fail_after(TIMEOUT_S), to_app, from_server, to_server, from_app:
        async with anyio.create_task_group() as server:
            server.start_soon(lambda: call(type="lifespan"))
            await to_app.send({"type": "lifespan.startup"})
            assert await from_app.receive() == {"type": "lifespan.startup.complete"}
            async with await anyio.connect_tcp("127.0.0.1", state["listener"].port) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"
                await call(type="http", method="GET", path="/clients", query_string=b"", headers=[], scheme="http")
                assert (await from_app.receive())["status"] == 200
                answer = json.loads((await from_app.receive())["body"])
                assert [each["bytes_in"] for each in answer["clients"]] == [5]
                await to_app.send({"type": "lifespan.shutdown"})
                assert await client.receive() == b"goodbye\n"
            assert await from_app.receive() == {"type": "lifespan.shutdown.complete"}
        assert state["listener"].state == "closed"
