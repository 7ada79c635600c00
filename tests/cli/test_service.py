"""The command as a service: what a service manager hears, and the files that the page about it offers."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.cli.running import LIMIT_S, Instance, connect, talk

from esockd_cli._notify import Notifier
from esockd_cli._service import Service
from esockd_core import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import RunEsockd

    from esockd_core import StreamConnection

pytestmark = pytest.mark.timeout(240)

DOCS = Path(__file__).resolve().parents[2] / "docs"
ESOCKD = Path(sys.executable).with_name("esockd")
CONFIG = '[listeners.edge]\nhandler = "echo"\nlisten = "127.0.0.1:0"\nmax_connections = 100\n'


class Manager:
    """A service manager that hears, and always at once: the queue of its socket is short."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.heard: queue.Queue[list[str]] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.heard.put(message.decode().splitlines())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.path)
        self._thread.join()
        self._socket.close()

    def hear(self, first: str) -> list[str]:
        """The message that begins with a line; those before it are passed over."""
        deadline = time.monotonic() + LIMIT_S
        while (lines := self.heard.get(timeout=max(0.0, deadline - time.monotonic())))[0] != first:
            pass
        return lines


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with TemporaryDirectory(prefix="esockd-") as folder:
        found = Manager(str(Path(folder, "notify")))
        monkeypatch.setenv("NOTIFY_SOCKET", found.path)
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        yield found
        found.close()


def test_the_manager_hears_of_readiness_life_reloads_and_the_end(manager: Manager, tmp_path: Path, loop: str) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(f'[esockd]\nloop = "{loop}"\n{CONFIG}')
    with Instance(str(file), command="run") as instance:
        assert manager.hear("READY=1") == ["READY=1", "STATUS=serving: 1 listener, 0 of 100 connections"]
        for _ in range(3):
            manager.hear("WATCHDOG=1")
        with connect(instance.read_port()) as client:
            assert talk(client, b"hello") == b"hello"
            for by_signal in (True, False):
                if by_signal:
                    instance.process.send_signal(signal.SIGHUP)
                else:
                    assert instance.run("reload").status == 0
                assert re.fullmatch(r"MONOTONIC_USEC=\d+", manager.hear("RELOADING=1")[1])
                assert manager.hear("READY=1")[1] == "STATUS=serving: 1 listener, 1 of 100 connections"
            instance.process.send_signal(signal.SIGTERM)
            assert manager.hear("STOPPING=1")[1] == "STATUS=closing"
            manager.hear("WATCHDOG=1")
        assert instance.wait().status == 0


def test_the_parent_speaks_for_its_workers(manager: Manager) -> None:
    with Instance("echo", "127.0.0.1:0", "--workers", "1", "-c", "50") as instance:
        assert manager.hear("READY=1")[1] == "STATUS=serving: 1 listener, 0 of 50 connections"
        with connect(instance.read_port()) as client:
            assert talk(client, b"hello") == b"hello"
        instance.process.send_signal(signal.SIGHUP)
        assert len(manager.hear("RELOADING=1")) == 2
        manager.hear("READY=1")
        manager.hear("WATCHDOG=1")
        instance.process.send_signal(signal.SIGTERM)
        manager.hear("STOPPING=1")
        assert instance.wait().status == 0


def test_a_program_that_cannot_start_never_says_that_it_is_ready(manager: Manager, esockd: RunEsockd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert esockd("open", "echo", f"127.0.0.1:{taken.getsockname()[1]}")[0] == 3
    assert manager.heard.empty()


@pytest.mark.anyio
async def test_the_status_line_follows_the_connections(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_cli._service.STATUS_S", 0.05)

    async def echo(connection: StreamConnection) -> None:
        async for data in connection:
            await connection.send(data)

    def hear(first: str) -> list[str]:
        return manager.hear(first)

    with anyio.fail_after(LIMIT_S):
        async with Server() as server, anyio.create_task_group() as tasks:
            service = Service(server, Notifier({"NOTIFY_SOCKET": manager.path}))
            listener = await server.open("edge", "127.0.0.1:0", echo, max_connections=10)
            await server.open("other", "127.0.0.1:0", echo, max_connections=2_000)
            await service.ready()
            assert hear("READY=1")[1] == "STATUS=serving: 2 listeners, 0 of 2,010 connections"
            tasks.start_soon(service.tell)
            async with await anyio.connect_tcp("127.0.0.1", listener.port or 0):
                await anyio.to_thread.run_sync(hear, "STATUS=serving: 2 listeners, 1 of 2,010 connections")
            tasks.cancel_scope.cancel()


def unit_at(folder: Path) -> Path:
    """The unit with the program that is installed here."""
    text = (DOCS / "service/esockd@.service").read_text().replace("/opt/esockd/bin/esockd", str(ESOCKD))
    path = folder / "esockd@edge.service"
    path.write_text(text)
    return path


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    done = subprocess.run(
        [require_tool("systemd-analyze"), "verify", "--man=no", unit_at(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_as_sandboxed_as_its_page_says(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    done = subprocess.run(
        [require_tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit_at(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    recorded = re.search(r"an exposure level of ([\d.]+)", (DOCS / "service.md").read_text())
    assert recorded is not None
    assert float(found[1]) <= float(recorded[1])


def test_the_flags_and_keys_of_the_unit_are_real(tmp_path: Path) -> None:
    [command] = re.findall(r"^ExecStart=\S+ (.+)$", (DOCS / "service/esockd@.service").read_text(), re.MULTILINE)
    (tmp_path / "edge.toml").write_text(CONFIG)
    arguments = command.replace("/etc/esockd/%i.toml", str(tmp_path / "edge.toml")).replace("%i", "edge").split()
    with Instance(*arguments[1:], command=arguments[0]) as instance:
        instance.read_port()
        # What the image asks for its health.
        [check] = re.findall(r'CMD \["esockd", (.+)\]$', (DOCS / "service/Dockerfile").read_text(), re.MULTILINE)[:1]
        words = [word.strip(' "') for word in check.split(",")]
        assert instance.run(*words).status == 0
        instance.stop()
        assert instance.run(*words).status == 4


def test_the_image_runs_as_a_user_without_rights() -> None:
    lines = (DOCS / "service/Dockerfile").read_text().splitlines()
    words = [line.split()[0] for line in lines if line and not line.startswith((" ", "#"))]
    assert words.index("USER") < words.index("HEALTHCHECK") < words.index("ENTRYPOINT")
    assert "USER esockd" in lines
    assert not [line for line in lines if line.startswith("ADD ")]


def test_the_pods_are_probed_where_the_metrics_are_and_drained_before_they_are_killed(tmp_path: Path) -> None:
    yaml: Any = pytest.importorskip("yaml")
    configuration, deployment, service = yaml.safe_load_all((DOCS / "service/kubernetes.yaml").read_text())
    file = tmp_path / "edge.toml"
    file.write_text(configuration["data"]["edge.toml"])
    with Instance(str(file), command="check") as check:
        assert check.wait().status == 0
    keys = dict(re.findall(r'^(\w+) = "?(.+?)"?$', file.read_text(), re.MULTILINE))
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert keys["metrics"] == f"*:{ports['metrics']}"
    assert keys["listen"] == f"*:{ports['edge']}"
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    [port] = service["spec"]["ports"]
    assert port["targetPort"] in ports
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    waits_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > waits_s + int(keys["shutdown_timeout"].removesuffix("s"))
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
