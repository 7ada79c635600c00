"""`esockd upgrade` and SIGUSR2: a new program on the same sockets, or the old one as it was."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.cli.arrivals import LIMIT_S, Arrivals, Upgraded, wait_for_pid_after
from tests.cli.running import ESOCKD, connect, talk
from tests.ports import steady_port

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("loop", "workers"),
    [("asyncio", ()), ("uvloop", ()), ("trio", ()), ("uvloop", ("--workers", "2")), ("trio", ("--workers", "2"))],
)
def test_a_new_program_takes_over_every_address_and_no_client_is_lost(
    tmp_path: Path, loop: str, workers: tuple[str, ...]
) -> None:
    path = f"{tmp_path}/s"
    (tmp_path / "app.py").write_text(
        "async def handle(connection):\n    async for data in connection:\n        await connection.send(data)\n"
    )
    options = ("-i", "edge", "--loop", loop, "--shutdown-timeout", "20s", *workers)
    with Upgraded("app:handle", "127.0.0.1:0", f"unix:{path}", *options, cwd=tmp_path) as instance:
        port = instance.read_port()
        before = instance.process.pid
        with connect(port) as old, Arrivals(("127.0.0.1", port), path) as arrivals:
            assert talk(old, b"hello") == b"hello"
            done = instance.run("upgrade", "--json").json
            assert done["replaced"] == before
            assert instance.pid() == done["pid"] != before
            assert talk(old, b"still here") == b"still here"
            assert instance.process.poll() is None
            old.close()
            instance.process.wait(LIMIT_S)
            assert instance.process.returncode == 0

            os.kill(done["pid"], signal.SIGUSR2)
            wait_for_pid_after(instance, done["pid"])
        assert not arrivals.lost
        assert arrivals.served
        assert Path(path).exists()
        with connect(port) as client:
            assert talk(client, b"hello") == b"hello"
        told = instance.end()
        assert told.count("has taken over; closing") == 2
        assert not Path(path).exists()


def test_a_program_that_cannot_start_is_told_and_the_one_before_goes_on(tmp_path: Path) -> None:
    def write(first: str, answer: str) -> None:
        lines = (first, "async def handle(connection):", "    async for _ in connection:")
        (tmp_path / "app.py").write_text("\n".join((*lines, f"        await connection.send(b{answer!r})\n")))

    def ask() -> bytes:
        with connect(port) as client:
            return talk(client, b"???")

    write("", "one")
    arguments = ("app:handle", "127.0.0.1:0", "-i", "edge")
    with Upgraded(*arguments, cwd=tmp_path) as instance:
        port, pid = instance.read_port(), instance.process.pid
        for first, timeout, told in (
            ("import nothing_like_this", "60s", "No module named 'nothing_like_this'"),
            ("import os; os._exit(7)", "60s", "it ended with status 7"),
            ("import time; time.sleep(60)", "1s", "it was not ready within 1 seconds"),
        ):
            write(first, "two")
            answer = instance.run("upgrade", "--timeout", timeout)
            assert answer.status == 1
            assert told in answer.err
            assert told in instance.read_log_until("this one goes on")
            assert ask() == b"one"
            assert instance.pid() == pid

        write("", "two")
        assert instance.run("upgrade").status == 0
        assert ask() == b"two"
        instance.end()


def test_upgrades_come_one_at_a_time_and_not_once_the_listeners_close(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import pathlib, time\n"
        "while pathlib.Path('wait').exists():\n"
        "    pathlib.Path('waiting').touch()\n"
        "    time.sleep(0.02)\n"
        "async def handle(connection):\n"
        "    async for data in connection:\n"
        "        await connection.send(data)\n"
    )
    with Upgraded("app:handle", "127.0.0.1:0", "-i", "edge", "--shutdown-timeout", "60s", cwd=tmp_path) as instance:
        port, pid = instance.read_port(), instance.process.pid
        (tmp_path / "wait").touch()
        os.kill(pid, signal.SIGUSR2)
        while not (tmp_path / "waiting").exists():
            time.sleep(0.02)
        answer = instance.run("upgrade")
        assert (answer.status, "an upgrade is under way" in answer.err) == (1, True)
        (tmp_path / "wait").unlink()
        wait_for_pid_after(instance, pid)
        instance.process.wait(LIMIT_S)

        with connect(port) as client:
            assert talk(client, b"hello") == b"hello"
            os.kill(instance.pid(), signal.SIGTERM)
            while "SIGTERM: closing" not in instance.read_log():
                pass
            answer = instance.run("upgrade")
            assert (answer.status, "cannot be upgraded any more" in answer.err) == (1, True)
        assert instance.wait().status == 0


def test_a_stop_while_a_new_program_starts_ends_both(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, pathlib, time\n"
        "while pathlib.Path('wait').exists():\n"
        "    pathlib.Path('pid').write_text(f'{os.getpid()}.')\n"
        "    time.sleep(0.02)\n"
        "async def handle(connection):\n"
        "    async for data in connection:\n"
        "        await connection.send(data)\n"
    )
    note = tmp_path / "pid"
    with Upgraded("app:handle", "127.0.0.1:0", "-i", "edge", "--shutdown-timeout", "60s", cwd=tmp_path) as instance:
        port = instance.read_port()
        with connect(port) as client:
            assert talk(client, b"hello") == b"hello"
            (tmp_path / "wait").touch()
            os.kill(instance.process.pid, signal.SIGUSR2)
            while not (note.exists() and note.read_text().endswith(".")):
                time.sleep(0.02)
            os.kill(instance.process.pid, signal.SIGTERM)
            assert "told to end" in instance.read_log_until("told to end")
            with pytest.raises(ProcessLookupError):
                os.kill(int(note.read_text()[:-1]), 0)
            assert talk(client, b"still here") == b"still here"
        assert instance.wait().status == 0


def test_the_file_is_read_by_the_new_program(tmp_path: Path) -> None:
    ports = steady_port(), steady_port(), steady_port()

    def write(*lines: str) -> None:
        text = (
            f'[esockd]\nmetrics = "127.0.0.1:{ports[2]}"',
            '[listeners.one]\nhandler = "echo"',
            f'listen = "127.0.0.1:{ports[0]}"',
        )
        (tmp_path / "edge.toml").write_text("\n".join((*text, *lines)))

    write()
    with Upgraded("edge.toml", command="run", cwd=tmp_path) as instance:
        instance.read_port()
        write("max_connections = -1")
        answer = instance.run("upgrade")
        assert answer.status == 1
        assert "max_connections" in answer.err

        write('[listeners.two]\nhandler = "static:two"', f'listen = "127.0.0.1:{ports[1]}"')
        with Arrivals(("127.0.0.1", ports[0])) as arrivals:
            assert instance.run("upgrade").status == 0
        assert not arrivals.lost
        with connect(ports[1]) as client:
            assert client.recv(3) == b"two"
        with connect(ports[2]) as probe:
            probe.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            assert probe.makefile().readline() == "HTTP/1.1 200 OK\n"
        instance.end()


def test_a_new_program_that_fails_leaves_files_and_queues_to_the_one_before(tmp_path: Path) -> None:
    path = f"{tmp_path}/s"

    def write(*lines: str) -> None:
        text = (f'[listeners.echo]\nhandler = "echo"\nlisten = "unix:{path}"', *lines)
        (tmp_path / "edge.toml").write_text("\n".join(text))

    write()
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        Upgraded("edge.toml", command="run", cwd=tmp_path) as instance,
    ):
        instance.read_address()
        write('[listeners.taken]\nhandler = "echo"', f'listen = "127.0.0.1:{other.getsockname()[1]}"')
        answer = instance.run("upgrade")
        assert (answer.status, "already in use" in answer.err) == (1, True)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT_S)
            client.connect(path)
            assert talk(client, b"hello") == b"hello"

        write()
        assert instance.run("upgrade").status == 0
        instance.end()
        assert not Path(path).exists()


def test_datagrams_go_to_the_new_program(loop: str) -> None:
    with Upgraded("echo", "udp://127.0.0.1:0", "-i", "edge", "--loop", loop) as instance:
        place = ("127.0.0.1", instance.read_port())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(LIMIT_S)
            peer.sendto(b"hello", place)
            assert peer.recv(10) == b"hello"
            assert instance.run("upgrade").status == 0
            peer.sendto(b"hello", place)
            assert peer.recv(10) == b"hello"
        instance.end()


def test_sockets_stored_with_the_service_manager_serve_those_who_came_between_two_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        manager.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        stored: dict[str, list[int]] = {}

        def hear(number: int) -> None:
            while sum(map(len, stored.values())) < number:
                message, descriptors, *_ = socket.recv_fds(manager, 4096, 8)
                lines = message.decode().splitlines()
                if "FDSTORE=1" in lines:
                    stored.setdefault(lines[-1].removeprefix("FDNAME="), []).extend(descriptors)

        arguments = ("open", "echo", "127.0.0.1:0", "udp://127.0.0.1:0", "-i", "edge")
        with Upgraded(*arguments[1:]) as instance:
            port = instance.read_port()
            hear(2)
            assert set(stored) == {"esockd.0.127.0.0.1%3A0", "esockd.0.udp%3A//127.0.0.1%3A0"}
            instance.end()

        with connect(port) as between:
            between.sendall(b"hello")
            names = [name for name, descriptors in stored.items() for _ in descriptors]
            descriptors = [each for name in stored for each in stored[name]]
            moves = " ".join(f"{3 + place}<&{each}" for place, each in enumerate(descriptors))
            script = f'exec {moves}; export LISTEN_PID=$$ LISTEN_FDS={len(names)}; exec "$@"'
            environment = {**os.environ, "LISTEN_FDNAMES": ":".join(names)}
            command = [str(each) for each in ("bash", "-c", script, "bash", ESOCKD, *arguments)]
            with subprocess.Popen(command, pass_fds=descriptors, env=environment) as second:
                assert between.recv(10) == b"hello"
                second.terminate()
                assert second.wait(LIMIT_S) == 0
        for each in descriptors:
            os.close(each)


def test_the_service_manager_hears_which_process_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        manager.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        with Upgraded("echo", "127.0.0.1:0", "-i", "edge") as instance:
            instance.read_port()
            pid = instance.run("upgrade", "--json").json["pid"]
            while manager.recv(4096) != f"MAINPID={pid}".encode():
                pass
            instance.end()
