"""The tour of the README, as somebody walks it: every command is the installed program."""

from __future__ import annotations

import re

import pytest
from tests.cli.running import Instance, connect, talk


@pytest.mark.timeout(240)  # it starts 16 programs, and a busy machine takes seconds for each
def test_the_tour_from_open_to_close() -> None:
    with Instance("echo", "127.0.0.1:0") as instance:
        port = instance.read_port()
        assert instance.read_log() == "serving on uvloop; Ctrl-C stops; watch it: esockd top -i echo"

        # Traffic, and what there is to see of it.
        with connect(port, "127.0.0.5") as guest, connect(port) as friend:
            assert (talk(guest, b"hello"), talk(friend, b"hello")) == (b"hello", b"hello")
            assert re.search(r"^echo +\S+ +running +2/\d+ +2 +0 +10 B +10 B ", instance.run("stats").out, re.MULTILINE)

            # Live: the guest may not come again, and is sent away.
            assert instance.run("deny", "127.0.0.5").err == (
                'echo: "deny 127.0.0.5" is the first rule now\n'
                "1 connection stays open: esockd connections kill echo 127.0.0.5\n"
            )
            assert instance.run("connections", "kill", "echo", "127.0.0.5").err == "echo: 1 connection closed\n"
            assert talk(guest, b"again") == b""
            with connect(port, "127.0.0.5") as again:
                assert talk(again, b"again") == b""

            # Why?
            explained = instance.run("explain", "127.0.0.5")
            assert (explained.status, explained.out.splitlines()[0]) == (1, "127.0.0.5 is refused: access rules")
            assert re.search(r" +127\.0\.0\.5:\d+ +closed_forbidden +", instance.run("rejects").out)
            assert re.search(r"^ +2 +0 +127\.0\.0\.5$", instance.run("top-sources").out, re.MULTILINE)

            # Other limits, first rehearsed on real clients.
            rehearsed = instance.run("rehearse", "max_connections=1", "--for", "10m", "--detach")
            assert (rehearsed.status, rehearsed.out) == (0, "")
            with connect(port, "127.0.0.6") as served:
                assert talk(served, b"hello") == b"hello"
            report = instance.run("rehearse").out
            assert re.search(r"^would refuse +1 \(closed_max_limit 1\)$", report, re.MULTILINE)
            assert re.search(r" +127\.0\.0\.6:\d+ +closed_max_limit +max_connections is 1$", report, re.MULTILINE)
            assert instance.run("rehearse", "cancel").status == 0
            assert instance.run("set", "max_connections=1", "--dry-run").out == "max_connections: 1024 -> 1 (live)\n"
            assert instance.run("set", "max_connections=1").out == "max_connections: 1024 -> 1 (live)\n"
            with connect(port) as one_too_many:
                assert talk(one_too_many, b"hello") == b""
            assert talk(friend, b"still here") == b"still here"

            # The end, in order.
            assert instance.run("drain", "--timeout", "100ms").err == (
                "echo is draining 1 open connection\necho is closed\n"
            )
            assert talk(friend, b"bye") == b""

        ended = instance.wait()
        assert ended.status == 0
        audit = re.findall(r"^info: listener echo on \S+: (\w+) by uid \d+, pid \d+: ", ended.err, re.MULTILINE)
        assert audit == ["deny", "kill_connections", "rehearse", "cancel_rehearsal", "set_options", "drain"]
        assert "3 refused" not in ended.err
        assert "3 accepted, 2 refused (closed_forbidden 1, closed_max_limit 1), 25 B in, 25 B out" in ended.err
        assert instance.run("stats").status == 4
