"""Draw the picture of `esockd top` in the README: a real instance with real clients, in a real terminal.

Usage: .venv/bin/python -m tools.top_picture [FILE]

Takes two minutes and needs tmux. The instance, its clients and the dashboard are processes of this machine; what the
terminal shows in the end is written as SVG.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

from tools.terminal_svg import to_svg

COLUMNS, LINES = 160, 31
SECONDS = 110.0
KEYS = ("Down",)
FILE = Path(__file__).parent.parent / "docs" / "esockd-top.svg"
INSTANCE = Path(__file__).with_name("busy_instance.py")


def main() -> None:
    """Entry point."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    esockd = Path(sys.executable).with_name("esockd")
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "ESOCKD_RUNTIME_DIR": f"{folder}/run", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        tmux = ("tmux", "-S", f"{folder}/tmux", "-f", os.devnull)
        with subprocess.Popen([sys.executable, INSTANCE], env=environment, stdout=subprocess.PIPE) as instance:
            try:
                cast("IO[bytes]", instance.stdout).readline()
                command = shlex.join([str(esockd), "top"])
                new = ("new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), command)
                subprocess.run([*tmux, *new], env=environment, check=True)
                time.sleep(SECONDS)
                for key in KEYS:
                    subprocess.run([*tmux, "send-keys", key], check=True)
                time.sleep(1.5)
                capture = [*tmux, "capture-pane", "-e", "-p"]
                captured = subprocess.run(capture, check=True, capture_output=True, text=True).stdout
            finally:
                subprocess.run([*tmux, "kill-server"], check=False)
                instance.kill()
    file.write_text(to_svg(captured, COLUMNS, "esockd top"))
    print(file)


if __name__ == "__main__":
    main()
