"""Where core does not run, it says so."""

from __future__ import annotations

import subprocess
import sys


def test_importing_core_on_windows_fails_with_one_sentence() -> None:
    program = "import sys; sys.platform = 'win32'; import esockd_core"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "ImportError: esockd_core serves on Linux, macOS and BSD: Windows lacks the interfaces of Unix that it needs"
    )
