"""`esockd run` with workers: what a reload opens, changes and closes, it does in every worker or in none."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.arrivals import Arrivals, Upgraded
from tests.cli.config.conftest import ECHO, until
from tests.cli.running import connect, talk
from tests.ports import is_refused, steady_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.config.conftest import Running

pytestmark = pytest.mark.timeout(300)

Run = Any

WORKERS = "[esockd]\nworkers = 2\n"
NAMED = """\
import os
async def handle(connection):
    async for data in connection:
        await connection.send(str(os.getpid()).encode() if data == b"pid" else b"app:" + data)
"""


def table(name: str, port: int, handler: str = "echo", *more: str) -> str:
    return "\n".join([f"[listeners.{name}]", f'handler = "{handler}"', f'listen = "127.0.0.1:{port}"', *more, ""])


def workers_of(edge: Running) -> set[int]:
    shown = edge.run("stats", "--json").json["workers"]
    return {each["pid"] for each in shown if each["state"] in ("running", "slow")}


def test_the_number_of_workers_is_that_of_the_command_line_or_of_the_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(NAMED)
    edge = run(WORKERS + ECHO.replace('"echo"\n', '"app:handle"\n'))
    assert edge.run("ps", "--json").json["instances"][0]["workers"] == 2
    assert "workers = 2                               # edge.toml:2" in edge.run("config", "show").out
    pids = workers_of(edge)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(edge.port)) for _ in range(20)]
        assert {int(talk(client, b"pid")) for client in clients} == pids
    assert edge.run("restart", "--json").json["workers"] == 2
    assert not pids & workers_of(edge)
    assert edge.stop().status == 0

    edge = run(WORKERS + ECHO, "--workers", "1")
    assert edge.run("ps", "--json").json["instances"][0]["workers"] == 1
    for arguments in ([], ["--dry-run"]):
        answer = edge.reload(WORKERS.replace("2", "3") + ECHO, *arguments)
        assert (answer.status, answer.out) == (5, "[esockd]: workers 2 -> 3 (restart)\n")
        hint = "esockd upgrade changes the number of workers, unless --workers gives it, and no client is lost."
        assert answer.err == f"error: edge.toml: [esockd] takes a restart; nothing was changed. {hint}\n"
    assert edge.reload(WORKERS + ECHO) == (0, "", "edge.toml changes nothing\n")
    assert edge.stop().status == 0


def test_reloads_under_load_refuse_and_reset_nobody(run: Run, loop: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(NAMED)
    head = f'{WORKERS}loop = "{loop}"\n'
    texts = [
        head + ECHO + 'max_connections = 900\nidle_timeout = "1m"\nacceptors = 2\naccess_rules = ["deny 192.0.2.1"]\n',
        head + ECHO + table("two", 0, "app:handle") + table("three", 0, "discard") + "tcp_options.nodelay = false\n",
        head + ECHO.replace('"echo"\n', '"static:hello"\n') + table("two", 0, "app:handle", "max_connections = 9"),
        head + ECHO,
    ]
    edge = run(texts[-1])
    with connect(edge.port) as steady, Arrivals(("127.0.0.1", edge.port)) as arrivals:
        for number in range(12):
            edge.write(texts[number % 4])
            edge.process.send_signal(signal.SIGHUP)
            edge.read_log_until("SIGHUP: edge.toml is in force")
            assert talk(steady, b"steady") == b"steady"
    assert arrivals.lost == []
    assert arrivals.served
    until(lambda: len(edge.run("ps", "--json").json["instances"][0]["listeners"]) == 1)
    shown = edge.run("stats", "--json").json
    assert shown["listeners"][0]["stats"]["accepted"] == arrivals.served + 1
    assert all(each["replaced"] == 0 for each in shown["workers"])
    assert edge.stop().status == 0


def test_an_added_listener_is_shown_and_survives_the_death_of_a_worker(run: Run, loop: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(NAMED)
    edge, port = run(f'{WORKERS}loop = "{loop}"\n{ECHO}'), steady_port()
    answer = edge.reload(f'{WORKERS}loop = "{loop}"\n{ECHO}' + table("two", port, "app:handle"))
    assert answer == (0, f"two 127.0.0.1:{port}: opened\n", "")
    assert edge.read_address() == f"127.0.0.1:{port}"
    assert [each["name"] for each in edge.run("ps", "--json").json["instances"][0]["listeners"]] == ["echo", "two"]
    workers = edge.run("stats", "--json").json["workers"]
    assert [[each["status"]["name"] for each in worker["listeners"]] for worker in workers] == [["echo", "two"]] * 2
    assert f"two       127.0.0.1:{port}" in edge.run("stats").out

    pids = workers_of(edge)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(workers_of(edge) - pids) == 2)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(30)]
        assert {int(talk(client, b"pid")) for client in clients} == workers_of(edge)
    with connect(edge.port) as client:
        assert talk(client, b"hello") == b"hello"
    assert edge.stop().status == 0


def test_a_handler_that_workers_cannot_import_is_refused_with_its_line_and_nothing_is_changed(
    run: Run, loop: str, tmp_path: Path
) -> None:
    edge, port = run(f'{WORKERS}loop = "{loop}"\n{ECHO}'), steady_port()
    pids = workers_of(edge)
    (tmp_path / "app.py").write_text("import nothing_like_this\n")
    text = f'{WORKERS}loop = "{loop}"\n{ECHO}max_connections = 7\n' + table("two", port, "app:handle")
    answer = edge.reload(text)
    assert (answer.status, answer.out) == (1, "")
    assert answer.err == (
        "error: edge.toml:9: cannot import \"app:handle\": app.py line 1: No module named 'nothing_like_this'.\n"
    )
    assert is_refused(port)
    assert edge.options()["max_connections"] == 1024
    # The same for a listener that is there, after another one was changed.
    answer = edge.reload(text.replace("two]", "zwei]").replace('"app:handle"', '"echo"'))
    assert answer.status == 0
    answer = edge.reload(text.replace("two]", "zwei]").replace("= 7", "= 8"))
    assert (answer.status, answer.out) == (1, "")
    assert "edge.toml:9: cannot import" in answer.err
    assert edge.options()["max_connections"] == 7
    with connect(port) as client:
        assert talk(client, b"hello") == b"hello"
    assert workers_of(edge) == pids
    assert edge.stop().status == 0


def test_an_address_in_use_is_refused_and_what_was_opened_before_is_closed(run: Run) -> None:
    edge, port = run(WORKERS + ECHO), steady_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        answer = edge.reload(WORKERS + ECHO + "max_connections = 7\n" + table("a", port) + table("b", taken))
    assert answer.status == 1
    assert answer.err.startswith(f"error: edge.toml:12: 127.0.0.1:{taken} is already in use")
    assert is_refused(port)
    assert edge.options()["max_connections"] == 1024
    assert edge.reload(WORKERS + ECHO + table("a", port)).status == 0
    with connect(port) as client:
        assert talk(client, b"hello") == b"hello"


def test_a_removed_listener_refuses_at_once_and_serves_its_clients_to_their_end(
    run: Run, loop: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(NAMED)
    head, port = f'{WORKERS}loop = "{loop}"\n', steady_port()
    edge = run(head + ECHO + table("two", port, "app:handle", 'shutdown_timeout = "60s"'), listeners=2)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(10)]
        assert all(talk(client, b"hello") == b"app:hello" for client in clients)
        assert edge.reload(head + ECHO) == (0, f"two 127.0.0.1:{port}: drained\n", "")
        until(lambda: is_refused(port))
        assert all(talk(client, b"still here") == b"app:still here" for client in clients)
        assert edge.reload().err == "edge.toml changes nothing\n"
    edge.read_log_until(f"closed two 127.0.0.1:{port}: ")  # those that asked whether it refuses may count too
    assert [each["name"] for each in edge.run("ps", "--json").json["instances"][0]["listeners"]] == ["echo"]
    status, _, err = edge.stop()
    assert status == 0
    assert "two" not in err


def test_the_only_listener_may_be_renamed_and_an_address_given_away_in_vain_is_served_again(run: Run) -> None:
    port = steady_port()
    edge = run(WORKERS + table("one", port))
    pids = workers_of(edge)
    assert edge.reload(WORKERS + table("two", port)).status == 0
    with connect(port) as client:
        assert talk(client, b"hello") == b"hello"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        answer = edge.reload(WORKERS + table("three", port) + table("four", taken))
    assert answer.status == 1
    with connect(port) as client:
        assert talk(client, b"hello") == b"hello"
    assert [each["name"] for each in edge.run("ps", "--json").json["instances"][0]["listeners"]] == ["two"]
    assert workers_of(edge) == pids
    assert edge.stop().status == 0


@pytest.mark.parametrize("others", [(), ("keep",)])
def test_an_address_is_served_again_though_the_handler_given_it_ended_the_only_worker(
    run: Run, tmp_path: Path, others: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text("import os\nos._exit(7)\n")
    port = steady_port()
    head = WORKERS.replace("2", "1") + "".join(table(name, steady_port()) for name in others)
    edge = run(head + table("old", port), listeners=1 + len(others))
    answer = edge.reload(head + table("new", port, "app:handle"))
    assert answer.status == 1
    assert answer.err.endswith(" ended meanwhile: nothing was changed.\n")
    with connect(port) as client:
        assert talk(client, b"hello") == b"hello"
    names = [each["name"] for each in edge.run("ps", "--json").json["instances"][0]["listeners"]]
    assert names == [*others, "old"]
    assert edge.stop().status == 0


def test_a_program_that_ends_because_a_reload_lost_its_last_listener_has_failed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os, shutil\nshutil.rmtree('sockets')\nos._exit(7)\n")
    (tmp_path / "sockets").mkdir()
    old = WORKERS.replace("2", "1") + '[listeners.old]\nhandler = "echo"\nlisten = "unix:sockets/s"\n'
    edge = run(old)
    answer = edge.reload(old.replace("old", "new").replace("echo", "app:handle"))
    assert answer.status == 1
    first, second = answer.err.splitlines()
    assert first.endswith(" ended meanwhile.")
    assert second.startswith("error: edge.toml: old unix:sockets/s could not be put back to what it was: ")
    end = edge.wait()
    assert end.status == 1
    assert "esockd reload: edge.toml is refused, and not everything is as it was" in end.err
    assert "nothing was changed" not in answer.err + end.err


def test_a_listener_that_was_closed_by_hand_is_opened_again_unless_it_was_the_last(run: Run) -> None:
    edge = run(WORKERS + ECHO + table("two", 0), listeners=2)
    assert edge.run("close", "echo").status == 0
    assert edge.reload() == (0, "echo 127.0.0.1:0: opened\n", "")
    assert edge.run("close", "two").status == edge.run("close", "echo").status == 0
    assert edge.wait().status == 0


def test_a_static_file_is_read_again_by_every_worker(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one")
    edge = run(WORKERS + ECHO.replace('"echo"\n', '"static:@text"\n'))
    (tmp_path / "text").write_text("two")
    assert edge.reload().status == 0
    for _ in range(20):
        with connect(edge.port) as client:
            assert client.recv(10) == b"two"


def test_listeners_of_datagrams_are_refused_by_name_with_what_to_do(run: Run, tmp_path: Path) -> None:
    datagrams = '[listeners.time]\nhandler = "daytime"\nlisten = "udp://127.0.0.1:0"\n'
    problem = (
        "error: edge.toml:{line}: udp://127.0.0.1:0: workers serve no datagrams. Give this listener a file of its own, "
        "and run that without workers.\n"
    )
    edge = run(ECHO, "--workers", "1")
    assert edge.reload(ECHO + datagrams) == (1, "", problem.format(line=6))
    edge.write(WORKERS + ECHO + datagrams)
    assert edge.run("check", "edge.toml") == (1, "", problem.format(line=8))
    assert edge.run("run", "edge.toml") == (3, "", problem.format(line=8))
    edge.write(ECHO + datagrams)
    assert edge.run("run", "edge.toml", "--workers", "2") == (3, "", problem.format(line=6))
    assert edge.run("check", "edge.toml").status == 0
    assert edge.stop().status == 0


@pytest.mark.parametrize("given", ["0", "65", '"many"', "true", "1.5", "-1"])
def test_a_number_of_workers_that_cannot_be_is_refused(run: Run, given: str) -> None:
    edge = run(ECHO)
    edge.write(f"[esockd]\nworkers = {given}\n{ECHO}")
    status, _, err = edge.run("check", "edge.toml")
    assert status == 1
    assert err.startswith(f"error: edge.toml:2: workers = {given}: it takes ")
    assert edge.run("check", "edge.toml").out == ""


def test_the_number_of_workers_may_change_in_an_upgrade(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(NAMED)
    kept, added = steady_port(), steady_port()
    echo = ECHO + table("kept", kept, "app:handle", 'shutdown_timeout = "60s"')
    (tmp_path / "edge.toml").write_text(WORKERS + echo)
    with Upgraded("edge.toml", command="run", cwd=tmp_path) as edge:
        port = edge.read_port()
        (tmp_path / "edge.toml").write_text(WORKERS + echo + table("two", added))
        assert edge.run("reload").status == 0
        with connect(kept) as old, Arrivals(("127.0.0.1", port), ("127.0.0.1", added)) as arrivals:
            assert talk(old, b"hello") == b"app:hello"
            for workers in ("3", "1"):
                (tmp_path / "edge.toml").write_text(WORKERS.replace("2", workers) + echo + table("two", added))
                assert edge.run("reload").status == 5
                done = edge.run("upgrade", "--json")
                assert done.status == 0, done
                assert edge.pid() == done.json["pid"]
                shown = edge.run("ps", "--json").json["instances"]
                assert [each["workers"] for each in shown] == [int(workers)]
            assert talk(old, b"hello") == b"app:hello"
        assert arrivals.lost == []
        assert arrivals.served
        edge.end()


def test_an_option_that_takes_new_sockets_is_refused_with_its_line_and_another_name_puts_it_in_force(run: Run) -> None:
    port = steady_port()
    text = table("one", port, "echo", "max_connections = 7", "tcp_options.reuse_port = true")
    edge = run(WORKERS + table("one", port))
    problem = (
        "error: edge.toml:7: tcp_options.reuse_port takes new listening sockets, and workers keep those of a listener. "
        "Give the listener another name: the one before is drained, and a new one is opened.\n"
    )
    edge.write(WORKERS + text)
    assert edge.run("reload", "--dry-run") == edge.reload() == (1, "", problem)
    assert edge.options("one")["max_connections"] == 1024
    assert edge.reload(WORKERS + text.replace("one", "two")).status == 0
    assert edge.options("two")["tcp.reuse_port"] is True
    assert edge.stop().status == 0


def test_watch_reloads_with_workers_too(run: Run) -> None:
    edge = run(WORKERS + ECHO, "--watch")
    edge.read_log_until("serving with 2 workers")
    assert edge.reload().err == "edge.toml changes nothing\n"  # so it looks at the file by now
    edge.write(WORKERS + ECHO + "max_connections = 5\n")
    edge.read_log_until("--watch: edge.toml is in force")
    assert edge.options()["max_connections"] == 5
    assert json.loads(edge.run("ps", "--json").out)["instances"][0]["workers"] == 2
