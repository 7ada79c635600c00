"""The control socket of `esockd open`."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.cli.running import Instance


def test_it_is_for_its_user_alone_and_named_after_the_listener() -> None:
    with Instance("echo", "127.0.0.1:0", "-n", "mqtt") as instance:
        instance.read_port()
        path = Path(instance.folder, "mqtt.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert instance.stop().status == 0
        assert not path.exists()


def test_a_second_instance_of_a_name_adds_its_process_id() -> None:
    with Instance("echo", "127.0.0.1:0") as one, Instance("echo", "127.0.0.1:0", folder=one.folder) as two:
        one.read_port()
        two.read_port()
        names = {each["name"]: each["pid"] for each in one.run("ps", "--json").json["instances"]}
        assert sorted(names.values()) == sorted([one.process.pid, two.process.pid])
        assert "echo" in names


def test_no_control_opens_none() -> None:
    with Instance("echo", "127.0.0.1:0", "--no-control") as instance:
        instance.read_port()
        assert instance.read_log() == "serving on uvloop; Ctrl-C stops"
        assert [*Path(instance.folder).iterdir()] == []
        assert instance.run("open", "echo", "0", "--no-control", "-i", "edge") == (
            2,
            "",
            "error: --instance does nothing with --no-control.\n",
        )


def test_a_second_socket_is_for_looking_only() -> None:
    with Instance("echo", "127.0.0.1:0", "--read-only", "666") as instance:
        instance.read_port()
        path = Path(instance.folder, "echo.ro.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert instance.run("stats", "-i", str(path)).status == 0
        assert instance.run("deny", "10.0.0.1", "-i", str(path)) == (
            5,
            "",
            "error: deny is a change, and this connection is read-only.\n",
        )
        assert instance.run("open", "echo", "0", "--read-only", "9").err == (
            "error: --read-only 9: it takes permission bits in octal such as 660, 0 to 777, or none.\n"
        )


def test_that_it_cannot_be_opened_is_one_line_and_the_listener_serves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Instance("echo", "127.0.0.1:0", folder=f"{tmp_path}/file/run") as instance:
        assert instance.read_port()
        err = instance.stop().err.splitlines()
    assert err[0].startswith("warning: no control socket: cannot make the folder")
    assert err[1] == "serving on uvloop; Ctrl-C stops"
    assert len(err) == 4
