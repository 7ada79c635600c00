"""Where the output is no terminal: a line for each moment, and a head every twenty."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.cli.top.scene import DATAGRAM_PLANS, make_frame

from esockd_cli.top.frame import Lost
from esockd_cli.top.recording import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import RunEsockd


@pytest.fixture
def recording(tmp_path: Path) -> str:
    recorder = Recorder(tmp_path / "incident.jsonl")
    for second in range(41):
        recorder.add(make_frame(second))
    recorder.add(Lost(at=make_frame(41).at, reason="connection \x1b[2J refused"))
    recorder.close()
    return str(tmp_path / "incident.jsonl")


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


def test_a_pipe_gets_lines_with_a_head_every_twenty(esockd: RunEsockd, recording: str) -> None:
    status, out, err = esockd("top", "--replay", recording)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert [index for index, line in enumerate(lines) if line.startswith("TIME")] == [0, 21, 42]
    assert " ".join(lines[0].split()) == "TIME CONNECTIONS ACCEPTS/S IN/S OUT/S QUEUE REJECTS/S HS FAILS LOOP LAG"
    assert " ".join(lines[1].split()) == "00:00:00 11,168 - - - 0 - 9 300 us"
    assert " ".join(lines[2].split()) == "00:00:01 11,168 283 2.3 MiB 6.9 MiB 4 27 10 300 us"
    assert lines[-1] == "00:00:41  does not answer: connection ?[2J refused"
    assert {len(line) for line in lines[:-1]} == {len(lines[0])}


def test_lines_and_scripts_get_datagrams_and_drops_by_cause(esockd: RunEsockd, tmp_path: Path) -> None:
    file = tmp_path / "datagrams.jsonl"
    recorder = Recorder(file)
    for number in range(2):
        recorder.add(make_frame(number, DATAGRAM_PLANS))
    recorder.close()
    _, out, _ = esockd("top", "--replay", str(file))
    head, first, second = out.splitlines()
    assert head.endswith("DGRAMS IN/S  DGRAMS OUT/S  DROPS/S")
    assert first.split()[-3:] == ["-", "-", "-"]
    assert second.split()[-3:] == ["5,139", "4,568", "20"]
    assert len(head) == len(first) == len(second)
    _, out, _ = esockd("top", "--replay", str(file), "--json")
    dns = json.loads(out.splitlines()[1])["listeners"][0]
    assert dns["rates"]["datagrams_in"] > dns["rates"]["datagrams_out"] > 0
    assert set(dns["rates"]["dropped"]) == {"queue_full", "kernel_overflow", "packet_rate", "unread"}
    assert dns["stats"]["datagrams_unsent"] == {"EPERM": dns["stats"]["datagrams_unsent"]["EPERM"]}


def test_scripts_get_every_counter_of_every_listener(esockd: RunEsockd, recording: str) -> None:
    status, out, _ = esockd("top", "--replay", recording, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert len(lines) == 42
    second = lines[1]
    assert (second["schema"], second["event"], second["instance"]["name"]) == (1, "frame", "edge")
    mqtt = second["listeners"][0]
    assert (mqtt["name"], mqtt["address"], mqtt["state"]) == ("mqtt", "*:1883", "running")
    assert mqtt["stats"]["max_connections"] == 1_024
    assert mqtt["rates"]["accepts"] > 0
    assert lines[0]["listeners"][0]["rates"] is None
    assert lines[-1]["event"] == "lost"


def test_a_file_that_is_no_recording_is_an_error_of_one_line(esockd: RunEsockd, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("hello\n")
    status, out, err = esockd("top", "--replay", "other")
    assert (status, out) == (1, "")
    assert err == "error: other is no recording that this version reads. Make one: esockd top --record FILE\n"


def test_help_names_the_options(esockd: RunEsockd) -> None:
    status, out, _ = esockd("top", "--help")
    assert status == 0
    assert "--replay" in out
