"""Core serves where the interfaces are missing that only Linux has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CORE = ROOT / "tests" / "core"
# A bit of everything: both styles of handlers on each event loop, accepting, changes of sockets, forwarding.
REPRESENTATIVE = (
    "connection/test_callback_handler.py",
    "connection/test_receiving.py",
    "connection/test_sending.py",
    "forwarding/test_forwarding.py",
    "listening/test_reopening.py",
    "listening/test_suspending.py",
    "loops/test_accepting.py",
    "loops/test_last_queue.py",
    "loops/test_trio_connections.py",
)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("system", ["darwin", "sunos5"])
def test_what_core_does_it_does_without_the_interfaces_of_linux(system: str) -> None:
    """With what macOS has, and with what a system has that lacks kqueue(2) as well."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.core.platform.elsewhere", "-p", "no:xdist"]
    finished = subprocess.run(
        [*command, *(CORE / name for name in REPRESENTATIVE)],
        cwd=ROOT,
        env={**os.environ, "ESOCKD_SYSTEM": system},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-5_000:] + finished.stderr[-1_000:]
