"""How long a process has waited for a processor, as the kernel tells it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from esockd_core._platform import run_queue
from esockd_core._platform.run_queue import waited_s

BEYOND_ALL_PIDS = (1 << 22) + 1  # PID_MAX_LIMIT of Linux, and one more


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not tell")
def test_the_wait_of_a_process_is_the_second_number_of_its_schedstat() -> None:
    file = Path(f"/proc/{os.getpid()}/schedstat")
    before_ns = int(file.read_text().split()[1])
    told_s = waited_s(os.getpid())
    after_ns = int(file.read_text().split()[1])
    assert 0 <= before_ns / 1e9 <= told_s <= after_ns / 1e9


def test_the_wait_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    says(monkeypatch, tmp_path, b"15 2500000000 7\n")
    assert waited_s(1) == 2.5


def test_a_process_that_is_gone_has_not_waited() -> None:
    assert waited_s(BEYOND_ALL_PIDS) == 0.0


@pytest.mark.parametrize("text", [b"", b"15", b"15 some 7"])
def test_a_kernel_that_does_not_tell_is_taken_for_no_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes
) -> None:
    says(monkeypatch, tmp_path, text)
    assert waited_s(1) == 0.0


def says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes) -> None:
    """Let the schedstat of every process say this."""
    file = tmp_path / "schedstat"
    file.write_bytes(text)
    monkeypatch.setattr(run_queue, "Path", lambda _: file)
