"""`esockd check`: everything that is wrong with a file, each with its line, its key and what to do."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import run_esockd

from esockd_cli.config.example import example
from esockd_cli.config.keys import LISTENER_KEYS, PATHS, PROGRAM_KEYS
from esockd_cli.config.problems import BadConfig
from esockd_cli.config.read import read_config
from esockd_cli.config.schema import find_errors
from esockd_core import OPTIONS

if TYPE_CHECKING:
    from tests.cli.config.conftest import Check

ECHO = '[listeners.echo]\nhandler = "echo"\nlisten = 0\n'


def test_a_valid_file_is_status_0_and_one_line(check: Check) -> None:
    text = f'{ECHO}[listeners.two]\nhandler = "discard"\nlisten = ["127.0.0.1:0", "[::1]:0"]\n'
    assert check(text) == (0, "edge.toml is valid: 2 listeners on 3 addresses\n", "")
    assert check(ECHO) == (0, "edge.toml is valid: 1 listener\n", "")


def test_an_unknown_key_is_named_with_its_line_and_with_what_was_meant(check: Check) -> None:
    problem = 'error: edge.toml:4: unknown key "max_conections". Did you mean "max_connections"?\n'
    assert check(f"{ECHO}max_conections = 5\n") == (1, "", problem)


WRONG = """\
[esockd]
loop = "asnycio"
max_connections = 4
[listeners.echo]
handler = "echo"
listen = [5000,
  "127.0.0.1:99999"]
idle_timeout = 30
nodelay = false
allow = ["10.0.0.0/8"]
access_rules = ["allow 10.0.0.0/8", "deny foo"]
tcp_options.nodelay = "maybe"
tls_options = 3
unix_mode = 660
[listeners.web]
handler = "ech"
listen = "tls://127.0.0.1:0"
connect_timeout = "3s"
[listeners."a b"]
listen = 0
"""

PROBLEMS = """\
2: loop = "asnycio": it takes one of auto, asyncio, uvloop, trio. Did you mean "asyncio"?
3: unknown key "max_connections". It belongs to a listener: [listeners.NAME].
7: listen[1] = "127.0.0.1:99999": port 99999 is out of range: 0 to 65535.
8: idle_timeout = 30: it takes a duration such as 30s, more than 0, or none. Did you mean "30s"?
9: unknown key "nodelay". Did you mean "tcp_options.nodelay"?
10: unknown key "allow". Write access_rules = ["allow 10.0.0.0/8", "deny all"].
11: access_rules[1] = "deny foo": rules take addresses, not names. Write one such as 10.0.0.0/8 or 2001:db8::/32; \
names are not looked up.
12: tcp_options.nodelay = "maybe": it takes true or false.
13: listeners.echo.tls_options takes a table, not 3.
14: unix_mode = 660: it takes permission bits as a text. Write "660".
15: tls://127.0.0.1:0 needs a certificate. Write cert = "FILE", and key = "FILE" for its key.
16: unknown handler "ech". Did you mean "echo"?
18: connect_timeout is for the handler forward:HOST:PORT, and not for "ech".
19: listeners."a b": the name of a listener has no blanks, quotes, "@" or "=".
19: listeners.a b has no handler. Write handler = "echo".
"""


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_lines(check: Check) -> None:
    status, out, err = check(WRONG)
    assert (status, out) == (1, "")
    assert err == "".join(f"error: edge.toml:{line}\n" for line in PROBLEMS.splitlines())


def test_json_has_file_line_key_code_message_and_hint_of_each_problem(check: Check) -> None:
    status, out, err = check(f"{ECHO}max_conections = 5\n[x]\n", "--json")
    told = json.loads(out)
    assert (status, err, told["schema"], told["valid"], told["file"]) == (1, "", 1, False, "edge.toml")
    assert told["problems"][0] == {
        "file": "edge.toml",
        "line": 4,
        "key": "listeners.echo.max_conections",
        "code": "bad_config",
        "message": 'unknown key "max_conections".',
        "hint": 'Did you mean "max_connections"?',
    }
    assert [each["line"] for each in told["problems"]] == [4, 5]
    assert json.loads(check(ECHO, "--json").out)["listeners"] == [{"listener": "echo", "address": "0"}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "edge.toml: there is no listener. Write [listeners.echo] with"),
        ("# nothing\n[listeners]\n", "edge.toml:2: there is no listener. Write [listeners.echo] with"),
        ("[listeners.echo\n", "edge.toml:1: "),
        ("x = 1\ny = 'a\n[z]\n", "edge.toml:"),
        ("[listeners.a]\n[listeners.a]\n", "edge.toml:2: "),
        (b"[listeners.a]\nhandler = '\xff'\n", "edge.toml:2: it is not UTF-8, as TOML has to be."),
        ("listeners = 3\n", "edge.toml:1: listeners takes a table, not 3."),
        ("esockd = []\n" + ECHO, "edge.toml:1: esockd takes a table, not []."),
        ("x = " + "[" * 5000 + "]" * 5000, "edge.toml: it is nested too deeply."),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(check: Check, text: str | bytes, problem: str) -> None:
    status, out, err = check(text)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {problem}")
    assert err.count("\n") == 1


def test_a_problem_has_no_line_where_none_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edge.toml").write_text(f"{ECHO}max_conections = 1\n")

    def fail(text: str) -> None:
        raise ValueError(text)

    monkeypatch.setattr("esockd_cli.config.source.find_lines", fail)
    with pytest.raises(BadConfig) as raised:
        read_config(str(tmp_path / "edge.toml"))
    [problem] = raised.value.problems
    assert (problem.line, problem.key) == (None, "listeners.echo.max_conections")


def test_two_listeners_on_one_port_are_refused(check: Check) -> None:
    text = (
        '[listeners.a]\nhandler = "echo"\nlisten = ["unix:/x", "127.0.0.1:7"]\n'
        '[listeners.b]\nhandler = "echo"\nlisten = 7\n'
        '[listeners.c]\nhandler = "echo"\nlisten = "unix:/x"\n'
        '[listeners.d]\nhandler = "echo"\nlisten = "*:7"\ntcp_options.reuse_port = true\n'
    )
    assert check(text).err.splitlines() == [
        "error: edge.toml:6: 7 is taken by listeners.a (127.0.0.1:7, line 3). Give one of them another port.",
        "error: edge.toml:9: unix:/x is taken by listeners.a (unix:/x, line 3). Give one of them another port.",
        "error: edge.toml:12: *:7 is taken by listeners.a (127.0.0.1:7, line 3). Give one of them another port.",
    ]
    both = text.replace("listen = 7\n", "listen = 8\n").replace("*:7", "127.0.0.2:7").replace("unix:/x", "unix:/y", 1)
    assert check(both).status == 0
    assert check(ECHO.replace("0", '["127.0.0.1:9", "127.0.0.1:9"]')).err == (
        "error: edge.toml:3: 127.0.0.1:9 is given twice.\n"
    )


def test_udp_that_answers_everybody_is_refused(check: Check) -> None:
    text = ECHO.replace("listen = 0", 'listen = "udp://*:0"')
    status, out, err = check(text)
    assert (status, out) == (1, "")
    assert err == (
        "error: edge.toml:3: the handler echo answers whoever asks on udp://*:0, and a UDP source can be forged: "
        'it would send to a victim. Name who may ask with access_rules = ["allow NETWORK", "deny all"], '
        "or listen on loopback only.\n"
    )
    assert check(f'{text}access_rules = ["allow 10.0.0.0/8", "deny all"]\n').status == 0


def test_dtls_shares_the_keys_for_certificates(check: Check, tmp_path: Path) -> None:
    text = ECHO.replace("listen = 0", 'listen = "dtls://127.0.0.1:0"')
    assert check(text).err == (
        "error: edge.toml:1: dtls://127.0.0.1:0 needs a certificate or pre-shared keys. "
        'Write cert = "FILE", and key = "FILE" for its key, or psk_file = "FILE".\n'
    )
    wrong = check(f'{text}cert = "none.pem"\n').err
    assert wrong.startswith(f'error: edge.toml:4: cert = "{tmp_path}/none.pem": it does not exist')


def test_what_does_nothing_is_refused(check: Check) -> None:
    text = f'{ECHO}proxy_trust = "10.0.0.0/8"\nkey_password_env = "X"\n'
    assert check(text, X="1").err.splitlines() == [
        "error: edge.toml:4: proxy_trust does nothing without proxy_protocol. Give proxy_protocol too.",
        'error: edge.toml:5: key_password_env is for tls://HOST:PORT, and no address is one. Did you mean "tls://0"?',
    ]


def test_what_is_mostly_a_mistake_is_a_warning(check: Check) -> None:
    text = f'{ECHO}access_rules = ["allow 10.0.0.0/8", "allow 10.1.0.0/16"]\n'
    status, out, err = check(text)
    assert (status, out) == (0, "edge.toml is valid: 1 listener\n")
    never = 'access_rules: "allow 10.1.0.0/16" can never decide: rules before it match every client that it matches'
    open_to_all = 'access_rules only allow, and whoever matches none is let in: end them with "deny all"'
    assert err == "".join(f"warning: edge.toml: listeners.echo: {doubt}\n" for doubt in (never, open_to_all))


@pytest.mark.parametrize(
    ("lines", "name", "value"),
    [
        ('idle_timeout = "1.5m"', "idle_timeout", 90),
        ('idle_timeout = "none"', "idle_timeout", None),
        ("max_connections = 7", "max_connections", 7),
        ('write_limit_bytes = "2MiB"', "write_limit_bytes", 2 << 20),
        ('max_conn_rate = "100/s"', "max_conn_rate", "100/s"),
        ("proxy_protocol = true", "proxy_protocol", True),
        ('proxy_trust = "10.0.0.0/8"', "proxy_protocol.trusted", ("10.0.0.0/8",)),
        ('proxy_trust = "none"', "proxy_protocol.trusted", None),
        ('unix_mode = "0o640"', "unix.mode", 0o640),
        ("unix_owner = 1000", "unix.owner", 1000),
        ("tls_min = 1.3", "tls.minimum_version", "1.3"),
        ('alpn = ["h2", "mqtt"]', "tls.alpn", ("h2", "mqtt")),
        ('tcp_options.keepalive = "off"', "tcp.keepalive", False),
        ('cert = "a.pem"', "tls.certfile", "/etc/esockd/a.pem"),
        ('cert = "/a.pem"', "tls.certfile", "/a.pem"),
    ],
)
def test_values_are_written_as_on_a_command_line_or_as_toml_has_them(lines: str, name: str, value: object) -> None:
    from esockd_cli.config.schema import read_tables  # noqa: PLC0415

    _, tables = read_tables(tomllib.loads(ECHO + lines), Path("/etc/esockd"))
    assert tables["echo"][PATHS[name]] == value


def test_every_option_that_can_be_written_has_a_key_and_no_two_have_the_same() -> None:
    assert {name for name, option in OPTIONS.items() if option.kind.is_text} <= PATHS.keys()
    paths = [*PATHS.values(), *((key,) for key in LISTENER_KEYS)]
    assert len({*paths}) == len(paths)


def test_the_example_is_valid_and_has_every_key_commented(tmp_path: Path) -> None:
    status, out, err = run_esockd("config", "example", cwd=tmp_path)
    assert (status, err, out) == (0, "", example())
    (tmp_path / "edge.toml").write_text(out.replace("5000", "0"))
    assert run_esockd("check", "edge.toml", "--bind", cwd=tmp_path).status == 0
    data = tomllib.loads(re.sub(r"^# ([a-z_]+ = )", r"\1", out, flags=re.MULTILINE))
    assert find_errors(data, tmp_path) == []
    assert data["esockd"].keys() == PROGRAM_KEYS.keys()
    echo = data["listeners"]["echo"]
    groups = {key: value for key, value in echo.items() if isinstance(value, dict)}
    nested = {(group, key) for group, keys in groups.items() for key in keys}
    assert {(key,) for key in echo.keys() - groups.keys()} | nested == {
        *PATHS.values(),
        *((key,) for key in LISTENER_KEYS),
    }


def test_bind_names_whoever_has_a_port_already(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f'{ECHO}[listeners.two]\nhandler = "echo"\nlisten = "127.0.0.1:{port}"\n'
        assert check(text).status == 0
        status, out, err = check(text, "--bind")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: edge.toml:6: 127.0.0.1:{port} is already in use by")
    assert f"pid {os.getpid()}" in err


def test_neither_check_nor_example_imports_what_renders() -> None:
    program = (
        "import sys, esockd_cli.commands.check, esockd_cli.config.read, esockd_cli.config.example; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert {"rich", "trio", "uvloop"}.isdisjoint(done.stdout.split())


def test_the_shell_completes_the_commands_of_configurations(tmp_path: Path) -> None:
    assert {"run", "check", "config", "reload"} <= {
        line.partition("\t")[0] for line in run_esockd("__complete", "", cwd=tmp_path).out.splitlines()
    }
    for words, expected in {("config", ""): {"show", "example"}, ("reload", "--d"): {"--dry-run"}}.items():
        offered = run_esockd("__complete", *words, cwd=tmp_path).out.splitlines()
        assert expected <= {line.partition("\t")[0] for line in offered}
