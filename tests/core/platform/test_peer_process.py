"""Who is at the other end of a Unix socket, on systems that tell it in other words."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from esockd_core._platform import peer_process
from esockd_core._platform.peer_process import PeerProcess


class Answering:
    """A socket of another system."""

    def __init__(self, answers: dict[tuple[int, int], bytes]) -> None:
        self._answers = answers

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        if (level, option) not in self._answers:
            raise OSError(42, "Protocol not available")
        return self._answers[level, option]


def test_both_ends_of_a_pair_are_this_process() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_process.peer_process(one) == PeerProcess(os.geteuid(), os.getpid())


@pytest.mark.parametrize(("platform", "pid"), [("darwin", 812), ("freebsd14", None)])
def test_macos_and_bsd_tell_it_in_struct_xucred(
    platform: str, pid: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_process, "PLATFORM", platform)
    xucred = struct.pack("Iih16i", 0, 501, 1, *[20] * 16)
    answers = {(0, 1): xucred, (0, 2): struct.pack("i", 812)}
    assert peer_process.peer_process(Answering(answers)) == PeerProcess(501, pid)


@pytest.mark.parametrize("platform", ["linux", "darwin", "aix"])
def test_a_system_that_does_not_tell_says_none(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_process, "PLATFORM", platform)
    assert peer_process.peer_process(Answering({})) is None
    assert peer_process.peer_process(Answering({(0, 1): b"", (1, 17): b""})) is None
