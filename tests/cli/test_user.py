"""`--user` and `--group`: root opens the ports, and nobody is served as root."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pytest
import trustme
from tests.accounts import NEEDS_ROOT, assert_process_has_no_capability, assert_process_is
from tests.cli.reachable import reachable_esockd
from tests.cli.running import Instance, talk
from tests.cli.top.terminals import until

from esockd_cli import _serving_as
from esockd_cli._account import read_account
from esockd_cli._errors import CommandError
from esockd_core.privileges import find_account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Command, RunEsockd

    from esockd_core.privileges import Account

pytestmark = pytest.mark.timeout(240)

LIMIT_S: Final = 120.0  # an upgrade starts two programs
LOW_PORTS: Final = count(random.Random(os.getpid()).randrange(600, 900))
APP: Final = """\
import os
AT_IMPORT = os.getuid()
async def handle(connection):
    await connection.send(f"{AT_IMPORT} {os.getuid()} {os.getpid()}\\n".encode())
"""


def low_address() -> str:
    """An address with a port below 1024, for this test process alone: 127.0.0.0/8 is this machine, on Linux."""
    pid = os.getpid()
    return f"127.{pid >> 16 & 255}.{pid >> 8 & 255}.{pid & 255}:{next(LOW_PORTS)}"


def private_folder(site: Path) -> Path:
    """A folder in which only root may look for a file."""
    folder = site / "private"
    folder.mkdir(mode=0o700)
    return folder


def ask(address: str) -> list[int]:
    """What `APP` answers: its user when it was imported, its user now, and its process."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), LIMIT_S) as client:
        return [int(each) for each in client.makefile().readline().split()]


def assert_serves_as(account: Account, pid: int) -> None:
    """See that a process has an account, and no way back."""
    assert_process_is(pid, account)
    assert_process_has_no_capability(pid)


def only_root_may_open(address: str) -> bool:
    """Whether this machine keeps the port of an address for root (ip(7)). Containers often keep none."""
    least = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    return int(address.rpartition(":")[2]) < int(least)


class InstanceOfUser(Instance):
    """An instance whose program every user may read."""

    limit_s = LIMIT_S


@pytest.fixture(scope="module")
def program() -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    with TemporaryDirectory(prefix="esockd-") as folder:
        Path(folder).chmod(0o755)
        yield reachable_esockd(Path(folder))


@pytest.fixture(scope="module")
def nobody() -> Account:
    return find_account("nobody")


@pytest.fixture
def site(
    program: tuple[tuple[str, ...], dict[str, str]], nobody: Account, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder that every user may read, with an app, and with a folder for control sockets that is nobody's."""
    monkeypatch.setattr(InstanceOfUser, "program", program[0])
    with TemporaryDirectory(prefix="esockd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "app.py").write_text(APP)
        (folder / "run").mkdir(mode=0o700)
        shutil.chown(folder / "run", nobody.uid, nobody.gid)
        control = {"ESOCKD_RUNTIME_DIR": f"{folder}/run"}
        monkeypatch.setattr(InstanceOfUser, "variables", MappingProxyType({**program[1], **control}))
        yield folder


@NEEDS_ROOT
@pytest.mark.linux
def test_ports_are_opened_as_root_and_served_as_the_user(site: Path, nobody: Account, loop: str) -> None:
    address, secure, metrics, path = low_address(), f"tls://{low_address()}", low_address(), site / "run/served"
    log, certificate = site / "run/log", private_folder(site) / "both.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    options = ("--metrics", metrics, "-i", "edge", "--loop", loop, "--log-file", str(log), "--cert", str(certificate))
    addresses = (address, secure, f"unix:{path}")
    with InstanceOfUser("app:handle", *addresses, "--user", "nobody", *options, cwd=site) as instance:
        assert instance.read_address() == address
        assert ask(address) == [nobody.uid, nobody.uid, instance.process.pid]
        assert_serves_as(nobody, instance.process.pid)
        assert (site / "run/edge.sock").stat().st_uid == nobody.uid
        assert path.stat().st_uid == nobody.uid
        with socket.create_connection((metrics.partition(":")[0], int(metrics.rpartition(":")[2])), LIMIT_S) as client:
            assert b" 200 " in talk(client, b"GET /healthz HTTP/1.1\r\n\r\n")
        reopened = instance.run("reopen", f"handle@{address}")
        assert (reopened.status != 0) == only_root_may_open(address)
        assert ("need root or CAP_NET_BIND_SERVICE" in reopened.err) == only_root_may_open(address)
        instance.process.send_signal(signal.SIGHUP)
        until(lambda: f"keeps its certificate: --cert {certificate}: it cannot be read: Perm" in log.read_text())
        assert ask(address) == [nobody.uid, nobody.uid, instance.process.pid]
        answer = instance.stop()
    assert answer.status == 0
    assert not path.exists()
    assert (log.stat().st_uid, log.stat().st_gid) == (nobody.uid, nobody.gid)


@NEEDS_ROOT
@pytest.mark.linux
def test_root_follows_no_link_of_the_user_to_a_log_file(site: Path, nobody: Account) -> None:
    theirs, log = site / "theirs", site / "run/log"
    theirs.touch(mode=0o600)
    log.symlink_to(theirs)
    with InstanceOfUser("echo", "127.0.0.1:0", "--user", "nobody", "--log-file", str(log)) as instance:
        status, out, err = instance.wait()
    assert (status, out) == (3, "")
    assert err == (
        f"error: nobody cannot write the log file {log}: Permission denied. "
        f"Give that user the file: install -o {nobody.uid} -g {nobody.gid} -m 640 /dev/null {log}\n"
    )
    assert theirs.read_bytes() == b""


@NEEDS_ROOT
@pytest.mark.linux
def test_workers_and_those_that_take_their_place_are_the_user(site: Path, nobody: Account) -> None:
    address, in_daemon = low_address(), find_account("nobody", "daemon")
    options = ("--user", "nobody", "--group", "daemon", "--workers", "2", "-i", "edge")
    with InstanceOfUser("app:handle", address, *options, cwd=site) as instance:
        assert instance.read_address() == address
        assert_serves_as(in_daemon, instance.process.pid)
        assert ask(address)[:2] == [nobody.uid, nobody.uid]
        before = {each["pid"] for each in instance.run("stats", "--json").json["workers"]}
        assert instance.run("restart").status == 0
        workers = [each for each in instance.run("stats", "--json").json["workers"] if each["pid"] not in before]
        assert len(workers) == 2
        for each in workers:
            assert_serves_as(in_daemon, each["pid"])
        assert ask(address)[:2] == [nobody.uid, nobody.uid]
        assert instance.stop().status == 0


@NEEDS_ROOT
@pytest.mark.linux
def test_a_configuration_names_the_user_and_what_only_root_may_read_is_not_read_again(
    site: Path, nobody: Account
) -> None:
    address, secure = low_address(), low_address()
    key = private_folder(site) / "key.pem"
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(site / "cert.pem"))
    issued.private_key_pem.write_to_path(str(key))
    (site / "edge.toml").write_text(
        '[esockd]\nuser = "nobody"\ninstance = "edge"\n'
        f'[listeners.app]\nhandler = "app:handle"\nlisten = "{address}"\n'
        f'[listeners.tls]\nhandler = "echo"\nlisten = "tls://{secure}"\ncert = "cert.pem"\nkey = "private/key.pem"\n'
    )
    with InstanceOfUser("edge.toml", command="run", cwd=site) as instance:
        assert [instance.read_address() for _ in range(2)] == [address, f"tls://{secure}"]
        assert ask(address) == [nobody.uid, nobody.uid, instance.process.pid]
        assert_serves_as(nobody, instance.process.pid)

        refused = instance.run("reload")
        assert refused.status == 1
        assert f'edge.toml:11: key = "{key}": it cannot be read: Permission denied.' in refused.err
        assert ask(address)

        shutil.chown(key.parent, nobody.uid)
        assert instance.run("reload").status == 0
        pid = instance.run("upgrade", "--json").json["pid"]
        try:
            assert_serves_as(nobody, pid)
            deadline = time.monotonic() + LIMIT_S
            while (answer := ask(address)) != [nobody.uid, nobody.uid, pid]:
                assert time.monotonic() < deadline, f"{answer} still"
        finally:
            os.kill(pid, signal.SIGTERM)
        assert instance.wait().status == 0


@NEEDS_ROOT
@pytest.mark.linux
def test_a_worker_that_may_not_read_its_key_says_so(site: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(site / "both.pem"))
    (site / "both.pem").chmod(0o600)
    options = ("--cert", str(site / "both.pem"), "--user", "nobody", "--workers", "1")
    with InstanceOfUser("echo", f"tls://{low_address()}", *options) as instance:
        status, out, err = instance.wait()
    assert (status, out) == (2, "")
    assert err == f"error: --cert {site}/both.pem: it cannot be read: Permission denied.\n"


@NEEDS_ROOT
@pytest.mark.linux
@pytest.mark.parametrize("command", ["open", "run"])
def test_a_module_that_only_root_may_read_is_told(site: Path, command: str) -> None:
    folder = site / "own"
    folder.mkdir(mode=0o700)
    (folder / "app.py").write_text(APP)
    (site / "edge.toml").write_text(
        '[esockd]\nuser = "nobody"\napp_dir = "own"\n[listeners.app]\nhandler = "app:handle"\nlisten = "127.0.0.1:0"\n'
    )
    arguments = {
        "open": ("app:handle", "127.0.0.1:0", "--app-dir", str(folder), "--user", "nobody"),
        "run": (str(site / "edge.toml"),),
    }[command]
    with InstanceOfUser(*arguments, command=command) as instance:
        status, out, err = instance.wait()
    assert out == ""
    assert f'this user may not read "{folder}"' in err
    assert status == {"open": 2, "run": 3}[command]


@NEEDS_ROOT
@pytest.mark.linux
def test_somebody_else_than_root_cannot_serve_as_another_user(site: Path, nobody: Account) -> None:
    done = subprocess.run(
        [*InstanceOfUser.program, "open", "echo", "127.0.0.1:0", "--user", "daemon"],
        env={**os.environ, **InstanceOfUser.variables},
        user=nobody.uid,
        group=nobody.gid,
        extra_groups=[],
        cwd=site,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"error: --user daemon: only root can serve as somebody else, and this is uid {nobody.uid}. "
        "Start it as root, or as that user without this flag.\n"
    )


def test_the_user_that_runs_the_command_already_is_no_other_user(start: Callable[..., Command], loop: str) -> None:
    own = ("--user", str(os.getuid()), "--group", str(os.getgid()))
    command = start("open", "echo", "127.0.0.1:0", "--loop", loop, *own)
    with command.connect(command.read_port()) as client:
        assert talk(client, b"hello") == b"hello"
    assert command.stop()[0] == 0


@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("no-such-user", None, "--user no-such-user: this machine does not know the name."),
        ("", None, "--user '': this machine does not know the name."),
        (None, "", "--group '': this machine does not know the name."),
        (None, "no-such-group", "--group no-such-group: this machine does not know the name."),
        ("3999999999", None, "--user 3999999999: the user database has no group for this number."),
    ],
)
def test_a_user_that_there_is_not_is_a_wrong_command_line(user: str | None, group: str | None, text: str) -> None:
    with pytest.raises(CommandError) as caught:
        read_account(user, group)
    assert (caught.value.message, caught.value.status) == (text, 2)


def test_a_user_that_there_is_not_is_told_with_its_line(esockd: RunEsockd, tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(
        '[esockd]\nuser = "no-such-user"\n[listeners.echo]\nhandler = "echo"\nlisten = "127.0.0.1:0"\n'
    )
    status, _, err = esockd("run", "edge.toml")
    assert status == 3
    assert err == 'error: edge.toml:2: user = "no-such-user": this machine does not know the name.\n'


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_user_that_there_is_not_makes_nothing_else_of_the_file_wrong(
    esockd: RunEsockd, tmp_path: Path, command: str
) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps/app.py").write_text(APP)
    (tmp_path / "edge.toml").write_text(
        '[esockd]\napp_dir = "apps"\nuser = "no-such-user"\n'
        '[listeners.app]\nhandler = "app:handle"\nlisten = "127.0.0.1:0"\n'
    )
    _, _, err = esockd(command, "edge.toml")
    assert err == 'error: edge.toml:3: user = "no-such-user": this machine does not know the name.\n'


@NEEDS_ROOT
@pytest.mark.linux
def test_an_upgrade_to_more_workers_than_the_user_can_have_says_what_to_do(site: Path) -> None:
    text = '[esockd]\nuser = "nobody"\ninstance = "edge"\nworkers = {}\n'
    text += f'[listeners.app]\nhandler = "app:handle"\nlisten = "{low_address()}"\n'
    (site / "edge.toml").write_text(text.format(2))
    with InstanceOfUser("edge.toml", command="run", cwd=site) as instance:
        instance.read_address()
        (site / "edge.toml").write_text(text.format(3))
        answer = instance.run("upgrade")
        assert answer.status == 1
        assert "stop the program, and start it anew with this number.\n" in answer.err
        assert instance.stop().status == 0


@pytest.mark.parametrize("flag", ["--user", "--group"])
def test_an_empty_user_is_not_the_one_of_the_file(esockd: RunEsockd, tmp_path: Path, flag: str) -> None:
    (tmp_path / "edge.toml").write_text(
        f'[esockd]\nuser = "{os.getuid()}"\ngroup = "{os.getgid()}"\n'
        '[listeners.echo]\nhandler = "echo"\nlisten = "127.0.0.1:0"\n'
    )
    status, out, err = esockd("run", "edge.toml", flag, "")
    assert (status, out) == (2, "")
    assert err == f"error: {flag} '': this machine does not know the name.\n"


def test_variables_lead_to_the_folders_of_the_user(nobody: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.setenv(name, "root")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    _serving_as._enter_environment(nobody)
    assert (os.environ["HOME"], os.environ["USER"], os.environ["LOGNAME"]) == (nobody.home, "nobody", "nobody")
    assert "XDG_RUNTIME_DIR" not in os.environ


def test_a_program_that_the_user_may_not_read_is_told(nobody: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, _: path != os.__file__)
    with pytest.raises(CommandError, match=f"nobody may not read {os.__file__}"):
        _serving_as._require_program(nobody)
