"""Reloading a configuration: all of it or nothing, with a plan, and without harm to clients."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import trustme
from tests.cli.config.conftest import ECHO, until
from tests.cli.running import LIMIT_S, Instance, connect, talk
from tests.ports import is_refused, steady_port

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

Run = Any

TWO = '[listeners.two]\nhandler = "discard"\nlisten = "127.0.0.1:0"\n'


def test_the_plan_says_of_each_change_what_it_takes_and_a_dry_run_changes_nothing(run: Run) -> None:
    edge = run(ECHO + TWO + 'idle_timeout = "2m"\n', listeners=2)
    edge.write(
        ECHO.replace('"echo"\n', '"discard"\n')
        + "max_connections = 500\nalpn = []\ntcp_options.reuse_port = true\ntcp_options.nodelay = false\n".replace(
            "alpn = []\n", ""
        )
        + '[listeners.new]\nhandler = "echo"\nlisten = "unix:new.sock"\n'
    )
    lines = [
        "new unix:new.sock: opened",
        "echo 127.0.0.1:0: handler echo -> discard (new connections)",
        "echo 127.0.0.1:0: max_connections 1024 -> 500 (live)",
        "echo 127.0.0.1:0: tcp_options.reuse_port off -> on (new sockets)",
        "echo 127.0.0.1:0: tcp_options.nodelay on -> off (new connections)",
        "two 127.0.0.1:0: drained",
    ]
    dry = "nothing was changed: this was a dry run\n"
    assert edge.reload(None, "--dry-run") == (0, "".join(f"{line}\n" for line in lines), dry)
    assert edge.options()["max_connections"] == 1024
    assert edge.reload() == (0, "".join(f"{line}\n" for line in lines), "")
    assert (edge.options()["max_connections"], edge.options()["tcp.reuse_port"]) == (500, True)
    assert [each["name"] for each in edge.run("ps", "--json").json["instances"][0]["listeners"]] == ["echo", "new"]
    assert edge.reload() == (0, "", "edge.toml changes nothing\n")
    assert edge.stop().status == 0


def test_json_has_the_plan_as_fields(run: Run) -> None:
    edge = run()
    answer = edge.reload(f'{ECHO}idle_timeout = "2m"\n', "--dry-run", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json == {
        "schema": 1,
        "outcome": "planned",
        "file": "edge.toml",
        "dry_run": True,
        "steps": [
            {
                "listener": "echo",
                "address": "127.0.0.1:0",
                "key": "idle_timeout",
                "old": "none",
                "new": "2m",
                "effect": "live",
            }
        ],
        "problems": [],
    }


def test_fifty_reloads_under_load_fail_no_request_and_leave_no_descriptor(run: Run, loop: str) -> None:
    head = f'[esockd]\nloop = "{loop}"\n'
    texts = [
        f'{head}{ECHO}max_connections = 900\nidle_timeout = "1m"\nacceptors = 2\naccess_rules = ["deny 192.0.2.1"]\n',
        head + ECHO + TWO + "tcp_options.nodelay = false\nbacklog = 512\n",
        head + ECHO,
    ]
    edge, failures = run(texts[-1]), list[Exception]()

    def reload_under_load(times: int) -> int:
        """Reload so many times; how many requests were served meanwhile."""
        served, is_over = 0, threading.Event()

        def load() -> None:
            nonlocal served
            while not is_over.is_set():
                try:
                    with connect(edge.port) as client:
                        assert talk(client, b"request") == b"request"
                    served += 1
                except (OSError, AssertionError) as error:
                    failures.append(error)

        thread = threading.Thread(target=load)
        with connect(edge.port) as steady:
            thread.start()
            try:
                for number in range(times):
                    edge.write(texts[number % 3])
                    edge.process.send_signal(signal.SIGHUP)
                    edge.read_log_until("SIGHUP: edge.toml is in force")
                    assert talk(steady, b"steady") == b"steady"
            finally:
                is_over.set()
                thread.join(LIMIT_S)
        return served

    reload_under_load(3)  # what is made once is not left over
    before = edge.descriptors()
    assert reload_under_load(51) > 0
    assert failures == []
    # The last client may have left this very moment; each look takes long enough for a connection to end.
    assert any(edge.descriptors() <= before for _ in range(10))
    assert edge.stop().status == 0


def test_an_identical_file_changes_nothing(run: Run) -> None:
    edge = run(f'{ECHO}access_rules = ["allow 127.0.0.0/8", "deny all"]\nmax_conn_rate = "100/s"\n')
    with connect(edge.port) as client:
        edge.process.send_signal(signal.SIGHUP)
        edge.read_log_until("SIGHUP: edge.toml changes nothing")
        assert talk(client, b"still here") == b"still here"
    assert edge.stop().status == 0


BROKEN = 'error: edge.toml:4: unknown key "max_conections". Did you mean "max_connections"?'


def test_a_broken_file_is_refused_word_for_word_and_the_old_one_serves_on(run: Run, loop: str) -> None:
    edge = run(f'[esockd]\nloop = "{loop}"\n{ECHO}max_connections = 600\n')
    with connect(edge.port) as client:
        answer = edge.reload(f"{ECHO}max_conections = 5\n[listeners.x]\n")
        assert (answer.status, answer.out) == (1, "")
        assert answer.err.splitlines() == [
            BROKEN,
            'error: edge.toml:5: listeners.x has no handler. Write handler = "echo".',
            "error: edge.toml:5: listeners.x has no listen. Write listen = 5000.",
        ]
        assert edge.read_log_until("error: edge.toml:4") == BROKEN
        assert edge.read_log_until("refused") == ("error: esockd reload: edge.toml is refused, and nothing was changed")
        edge.file.unlink()
        edge.process.send_signal(signal.SIGHUP)
        edge.read_log_until("no such file or directory")
        assert talk(client, b"still here") == b"still here"
    assert edge.options()["max_connections"] == 600
    assert edge.stop().status == 0


def test_json_has_the_problems_of_a_broken_file(run: Run) -> None:
    edge = run()
    answer = edge.reload(f"{ECHO}max_conections = 5\n", "--json")
    assert (answer.status, answer.err) == (1, "")
    assert (answer.json["outcome"], answer.json["problems"][0]["line"]) == ("refused", 4)


def test_removing_a_key_resets_it(run: Run) -> None:
    edge = run(f'{ECHO}max_connections = 5\nidle_timeout = "1m"\ntcp_options.keepalive_count = 3\n')
    told = edge.reload(ECHO).out
    assert told.splitlines() == [
        "echo 127.0.0.1:0: max_connections 5 -> 1024 (live)",
        "echo 127.0.0.1:0: idle_timeout 1m -> none (live)",
        "echo 127.0.0.1:0: tcp_options.keepalive_count 3 -> 9 (new connections)",
    ]


def test_the_file_wins_over_live_changes_and_the_plan_shows_them(run: Run) -> None:
    edge = run(f"{ECHO}max_connections = 5\n")
    assert edge.run("set", "max_connections=6").status == 0
    assert edge.run("deny", "192.0.2.1").status == 0
    plan = [
        "echo 127.0.0.1:0: max_connections 6 -> 5 (live)",
        "echo 127.0.0.1:0: access_rules deny 192.0.2.1 -> - (live)",
    ]
    assert edge.reload().out.splitlines() == plan
    assert edge.options()["access_rules"] == []
    assert edge.reload().err == "edge.toml changes nothing\n"


def test_a_listener_that_was_closed_by_hand_is_opened_again(run: Run) -> None:
    edge = run(ECHO + TWO, listeners=2)
    assert edge.run("close", "two").status == 0
    assert edge.reload().out == "two 127.0.0.1:0: opened\n"


def test_an_option_of_tls_is_put_in_force_though_no_file_has_changed(run: Run, tmp_path: Path) -> None:
    write_certificate(tmp_path)
    edge = run(TLS)
    assert edge.reload(f'{TLS}alpn = ["mqtt"]\n').out == "echo tls://127.0.0.1:0: alpn - -> mqtt (new connections)\n"
    assert edge.options()["tls.alpn"] == ["mqtt"]


def test_nothing_is_changed_where_a_new_listener_cannot_be_opened(run: Run, loop: str) -> None:
    head = f'[esockd]\nloop = "{loop}"\n{ECHO}'
    edge = run(f'{head}access_rules = ["deny 192.0.2.1"]\n{TWO}', listeners=2)
    before = edge.options()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = (
            f'{head}max_connections = 5\ntcp_options.reuse_port = true\n[listeners.new]\nhandler = "echo"\n'
            f'listen = ["127.0.0.1:0", "127.0.0.1:{port}"]\n'
        )
        answer = edge.reload(text)
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.startswith(f"error: edge.toml:10: 127.0.0.1:{port} is already in use by")
    assert edge.options() == before
    listed = edge.run("ps", "--json").json["instances"][0]["listeners"]
    assert [each["name"] for each in listed] == ["echo", "two"]
    assert edge.reload(text).status == 0
    assert edge.stop().status == 0


def test_a_change_of_the_program_takes_a_restart_and_changes_nothing(run: Run) -> None:
    edge = run()
    text = f'[esockd]\nloop = "trio"\nread_only = "660"\n{ECHO}max_connections = 5\n'
    for arguments in ([], ["--dry-run"]):
        status, out, err = edge.reload(text, *arguments)
        assert status == 5
        assert out.splitlines()[:2] == [
            "[esockd]: loop auto -> trio (restart)",
            "[esockd]: read_only - -> 660 (restart)",
        ]
        assert err == "error: edge.toml: [esockd] takes a restart; nothing was changed.\n"
    assert edge.options()["max_connections"] == 1024


STUBBORN = """
async def handle(connection):
    async for data in connection:
        await connection.send(data)
"""


def test_a_removed_listener_serves_its_connections_to_their_end(run: Run, tmp_path: Path, loop: str) -> None:
    (tmp_path / "app.py").write_text(STUBBORN)
    port = steady_port()
    head = f'[esockd]\nloop = "{loop}"\n'
    leaving = f'[listeners.leaving]\nhandler = "app:handle"\nlisten = "127.0.0.1:{port}"\nshutdown_timeout = "none"\n'
    edge = run(head + ECHO + leaving, listeners=2)
    with connect(port) as client:
        assert talk(client, b"before") == b"before"
        assert edge.reload(head + ECHO).out == f"leaving 127.0.0.1:{port}: drained\n"
        until(lambda: is_refused(port))
        answer = edge.reload(head + ECHO + leaving)
        assert answer.status == 1
        assert f"listener leaving on 127.0.0.1:{port} is open already" in answer.err
        assert talk(client, b"after") == b"after"
    edge.read_log_until(f"closed leaving 127.0.0.1:{port}: ")  # those that asked whether it refuses may count too
    assert edge.stop().status == 0


def test_a_listener_may_take_over_the_port_of_another_one(run: Run, loop: str) -> None:
    port = steady_port()
    head = f'[esockd]\nloop = "{loop}"\n'
    old = f'{head}[listeners.old]\nhandler = "echo"\nlisten = "127.0.0.1:{port}"\n'
    new = f'{head}[listeners.new]\nhandler = "static:new"\nlisten = "*:{port}"\n'
    edge = run(old)
    assert edge.reload(new).out.splitlines() == [f"new *:{port}: opened", f"old 127.0.0.1:{port}: drained"]
    with connect(port) as client:
        assert client.recv(3) == b"new"
    assert edge.reload(old).status == 0
    with connect(port) as client:
        assert talk(client, b"old") == b"old"
    assert edge.stop().status == 0


def test_an_address_that_was_given_away_in_vain_is_served_again(run: Run) -> None:
    port = steady_port()
    old = f'[listeners.old]\nhandler = "echo"\nlisten = "127.0.0.1:{port}"\n'
    edge = run(old)
    with socket.create_server(("127.0.0.2", port)):
        answer = edge.reload(f'[listeners.new]\nhandler = "echo"\nlisten = "*:{port}"\n')
    assert answer.status == 1
    assert "is already in use by" in answer.err
    with connect(port) as client:
        assert talk(client, b"again") == b"again"
    assert edge.reload(old).err == "edge.toml changes nothing\n"
    assert edge.stop().status == 0


AUTHORITY = trustme.CA()
TLS = '[listeners.echo]\nhandler = "echo"\nlisten = "tls://127.0.0.1:0"\ncert = "both.pem"\n'


def write_certificate(folder: Path) -> str:
    """A new certificate for localhost; its serial number."""
    certificate = AUTHORITY.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    return str(ssl._ssl._test_decode_cert(folder / "both.pem")["serialNumber"])  # type: ignore[attr-defined]


def serial_number(port: int) -> str:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    with connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        return str((client.getpeercert() or {})["serialNumber"])


def test_certificates_are_read_again_and_only_if_they_have_changed(run: Run, tmp_path: Path) -> None:
    first = write_certificate(tmp_path)
    edge = run(TLS)
    assert serial_number(edge.port) == first
    assert edge.reload().err == "edge.toml changes nothing\n"
    second = write_certificate(tmp_path)
    assert edge.reload().out == "echo tls://127.0.0.1:0: certificate is read again (new connections)\n"
    assert serial_number(edge.port) == second
    (tmp_path / "both.pem").write_text("nothing")
    assert edge.reload().err == (
        f'error: edge.toml:4: cert = "{tmp_path}/both.pem": it holds no certificate in PEM form.\n'
    )
    assert serial_number(edge.port) == second
    assert edge.stop().status == 0


def test_a_static_file_is_read_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("one")
    edge = run(ECHO.replace('"echo"\n', '"static:@hello.txt"\n'))
    (tmp_path / "hello.txt").write_text("two")
    assert edge.reload().out == "echo 127.0.0.1:0: handler is read again (new connections)\n"
    with connect(edge.port) as client:
        assert client.recv(3) == b"two"


def test_watch_reloads_when_the_file_or_a_certificate_changes(run: Run, tmp_path: Path, loop: str) -> None:
    first = write_certificate(tmp_path)
    head = f'[esockd]\nloop = "{loop}"\n{TLS}'
    edge = run(head, "--watch")
    assert serial_number(edge.port) == first
    edge.write(f"{head}max_connections = 5\n")
    edge.read_log_until("--watch: edge.toml is in force")
    assert edge.options()["max_connections"] == 5
    second = write_certificate(tmp_path)
    edge.read_log_until("--watch: edge.toml is in force")
    assert serial_number(edge.port) == second
    edge.write("broken")
    edge.read_log_until("--watch: edge.toml is refused, and nothing was changed")
    edge.write(head)
    edge.read_log_until("--watch: edge.toml is in force")
    assert edge.stop().status == 0


def test_what_was_started_by_flags_has_nothing_to_reload() -> None:
    with Instance("echo", "127.0.0.1:0") as instance:
        instance.read_port()
        problem = "error: echo has no configuration file: esockd run did not start it.\n"
        assert instance.run("reload") == (1, "", problem)
        assert json.loads(instance.run("reload", "--json").err)["error"]["code"] == "no_configuration"


def test_a_client_that_may_only_look_can_plan_and_not_reload(run: Run) -> None:
    edge = run(f'[esockd]\nread_only = "660"\n{ECHO}')
    looking = f"{edge.folder}/edge.ro.sock"
    assert edge.run("reload", "--dry-run", "-i", looking).status == 0
    assert edge.run("reload", "-i", looking).status == 5


def test_a_stop_during_reloads_ends_in_order(run: Run) -> None:
    edge = run()
    for number in range(5):
        edge.write(f"{ECHO}max_connections = {number + 1}\n{TWO}" if number % 2 else ECHO)
        edge.process.send_signal(signal.SIGHUP)
    assert edge.stop().status == 0


def test_no_secret_is_told_by_a_reload(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_certificate(tmp_path)
    monkeypatch.setenv("EDGE_PASSWORD", "correct-horse")
    edge = run(f'{TLS}key_password_env = "EDGE_PASSWORD"\n', "-v")
    monkeypatch.setenv("EDGE_PASSWORD", "unused")
    told = [
        edge.reload(f'{TLS}key_password_env = "EDGE_PASSWORD"\nmax_connections = 5\n', "-v"),
        edge.run("get", "tls"),
        edge.run("get", "--json"),
        edge.reload(f'{TLS}key_password = "correct-horse"\n', "-v", "--json"),
        edge.stop(),
    ]
    assert "correct-horse" not in str(told)
