"""Recordings give back what was seen, whatever befell the file."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.top.scene import DATAGRAM_PLANS, make_frame

from esockd_cli._errors import CommandError
from esockd_cli.top.frame import Frame, Lost, OpenConnection
from esockd_cli.top.recording import Recorder, Recording

SEEN: list[Frame | Lost] = [
    make_frame(1),
    Lost(at=1764288002.5, reason='no "answer"\n'),
    make_frame(3, DATAGRAM_PLANS),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "incident.jsonl"
    recorder = Recorder(file)
    for each in SEEN:
        recorder.add(each)
    recorder.close()
    return file


def test_a_recording_gives_back_what_was_seen(path: Path) -> None:
    with Recording(path) as recording:
        assert [recording.moment(index) for index in range(len(recording))] == SEEN


def test_a_recording_is_json_lines_for_its_owner_only(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"esockd_recording": 1}
    assert [line["at"] for line in lines[1:]] == [each.at for each in SEEN]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_last_line_that_was_cut_short_is_left_out(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])
    with Recording(path) as recording:
        assert len(recording) == len(SEEN) - 1


@pytest.mark.parametrize(
    "line",
    ["{", '{"at": 1}', '{"at": 1, "frame": 7}', '{"at": 1, "frame": {"at": "noon"}}', "[]", '{"lost": {"at": true}}'],
)
def test_a_broken_line_is_named(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")
    with Recording(path) as recording, pytest.raises(CommandError, match=r"incident\.jsonl: line 5 is broken"):
        recording.moment(3)


@pytest.mark.parametrize("text", ["", "hello\n", "[]\n", '{"esockd_recording": 99}\n', "\0\xff"])
def test_another_file_is_no_recording(tmp_path: Path, text: str) -> None:
    (tmp_path / "other").write_text(text)
    with pytest.raises(CommandError, match="is no recording that this version reads"):
        Recording(tmp_path / "other")


def test_a_recording_of_nothing_says_so(tmp_path: Path) -> None:
    Recorder(tmp_path / "empty").close()
    with pytest.raises(CommandError, match="has nothing in it"):
        Recording(tmp_path / "empty")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="gone: No such file or directory"):
        Recording(tmp_path / "gone")
    with pytest.raises(CommandError, match=r"cannot use .*: No such file or directory"):
        Recorder(tmp_path / "gone" / "file")


def test_a_recording_is_never_written_over(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CommandError, match="exists already") as caught:
        Recorder(path)
    assert caught.value.hint == "Record to a new file."
    assert path.read_bytes() == before


def test_a_full_disk_ends_the_recording_and_nothing_else() -> None:
    recorder = Recorder.__new__(Recorder)
    recorder.failure = ""
    recorder._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    recorder.add(make_frame(1))
    assert recorder.failure == os.strerror(errno.ENOSPC)
    recorder.add(make_frame(2))
    recorder.close()


def test_surrogates_of_a_path_survive(tmp_path: Path) -> None:
    odd = OpenConnection(id=1, peer=os.fsdecode(b"/run/\xff\x1b[2J"), opened_at=0.0)
    frame = make_frame(1)
    frame = replace(frame, listeners=(replace(frame.listeners[0], connections=(odd,)),))
    recorder = Recorder(tmp_path / "odd")
    recorder.add(frame)
    recorder.close()
    with Recording(tmp_path / "odd") as recording:
        assert recording.moment(0) == frame
