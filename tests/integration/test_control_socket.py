"""The control socket of a real program on each event loop: used by another process, and left behind by a killed one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.patience import PATIENCE_S

from esockd_core import ControlClient, InstanceUnreachable, find_control_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PROGRAM = textwrap.dedent("""
    import sys

    import anyio
    from esockd_core import ControlServer, Server
    from esockd_core.handlers import echo


    async def main():
        async with Server() as server, ControlServer(server, "edge") as control:
            listener = await server.open("echo", "127.0.0.1:0", echo)
            print(control.name, flush=True)
            await listener.wait_closed()


    backend, use_uvloop = sys.argv[1:]
    anyio.run(main, backend=backend, backend_options={"use_uvloop": True} if use_uvloop == "True" else {})
""")


def start(backend: str, *, use_uvloop: bool = False) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROGRAM, backend, str(use_uvloop)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "edge\n"
    return process


@pytest.fixture
def program(
    anyio_backend: tuple[str, dict[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[str]]:
    """A program with a control socket, on the event loop of the test."""
    monkeypatch.setenv("ESOCKD_RUNTIME_DIR", str(tmp_path / "run"))
    backend, options = anyio_backend
    with start(backend, use_uvloop=options.get("use_uvloop", False)) as process:
        yield process
        process.kill()


async def test_a_program_is_inspected_changed_and_closed_from_another_process(
    program: subprocess.Popen[str],
) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with ControlClient("edge") as client:
            assert client.greeting.pid == program.pid
            listener = client.listener("echo")
            port = (await listener.get_status()).port
            assert port is not None
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as user:
                user.sendall(b"hello")
                assert user.recv(5) == b"hello"
                assert (await listener.get_stats()).accepted == 1
                await listener.kill_connections("all")
                with suppress(ConnectionResetError):
                    assert user.recv(5) == b""
            await listener.close()
        assert await anyio.to_thread.run_sync(program.wait, PATIENCE_S) == 0
    assert find_control_sockets() == {}


async def test_a_socket_left_behind_by_a_killed_program_is_told_from_a_live_one(
    program: subprocess.Popen[str],
) -> None:
    with anyio.fail_after(PATIENCE_S):
        os.kill(program.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(program.wait, PATIENCE_S)
        assert list(find_control_sockets()) == ["edge"]
        with pytest.raises(InstanceUnreachable, match="has ended"):
            async with ControlClient("edge"):
                pass
        with start("asyncio") as successor:
            async with ControlClient("edge") as client:
                assert client.greeting.pid == successor.pid
                await client.listener("echo").kill()


async def test_any_program_can_ask(program: subprocess.Popen[str]) -> None:
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(PATIENCE_S)
        plain.connect(str(find_control_sockets()["edge"]))
        plain.sendall(b'{"id":1,"method":"listeners"}\n')
        with plain.makefile() as lines:
            assert json.loads(lines.readline())["esockd"]["pid"] == program.pid
            [status] = json.loads(lines.readline())["result"]
    assert (status["name"], status["state"]) == ("echo", "running")
