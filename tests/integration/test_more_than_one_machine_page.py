"""What the page "More than one machine" shows is what HAProxy takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs" / "more-than-one-machine.md"


def test_haproxy_takes_the_configuration_of_the_page(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    file = tmp_path / "haproxy.cfg"
    file.write_text(blocks[0])
    command = [require_tool("haproxy"), "-c", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
