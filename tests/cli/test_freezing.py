"""The command keeps the collector's pauses short: what lives long is frozen, and garbage in it is found."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = """
import gc, sys
from esockd_cli._freezing import Freezer

class Node:
    pass

def node_in_a_cycle():
    node = Node()
    node.me = node  # only the collector frees it
    return node

holders = 0
freezer = Freezer(lambda: holders)
gc.callbacks.append(freezer)
"""


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, timeout=50, check=True
    )
    return done.stdout.split()


def test_no_collection_looks_again_at_what_has_survived_two() -> None:
    """Objects that come with connections are growth, and no reason to look at everything."""
    out = run(
        "held = []\n"
        "for number in range(200_000):\n"
        "    held.append(node_in_a_cycle())\n"
        "    holders = number // 10\n"
        "print(freezer.thawed, gc.get_freeze_count() > 200_000, len(gc.get_objects()) < 50_000)\n"
    )
    assert out == ["0", "True", "True"]


def test_what_is_frozen_is_not_counted_again_while_nothing_survives() -> None:
    """Counting walks over all of it, which takes as long as the pauses that freezing avoids."""
    out = run(
        "asked = 0\n"
        "def counted(count=gc.get_freeze_count):\n"
        "    global asked\n"
        "    asked += 1\n"
        "    return count()\n"
        "gc.disable()\n"
        "gc.get_freeze_count = counted\n"
        "for _ in range(1_000):\n"
        "    freezer('stop', {'generation': 1})\n"
        "print(asked)\n"
    )
    assert out == ["0"]


def test_cycles_that_were_frozen_alive_are_freed_once_they_are_many() -> None:
    """Each lives until 10,000 others have come: long enough to be frozen.

    Once all are thawed, it takes as many new objects until the full collection as Python's thresholds say.
    """
    out = run(
        "import math\n"
        "from collections import deque\n"
        "alive = 0\n"
        "class Counted(Node):\n"
        "    def __init__(self):\n"
        "        global alive\n"
        "        alive += 1\n"
        "        self.me = self\n"
        "    def __del__(self):\n"
        "        global alive\n"
        "        alive -= 1\n"
        "base = gc.get_freeze_count()\n"
        "most = 0\n"
        "held = deque(maxlen=10_000)\n"
        "for _ in range(500_000):\n"
        "    held.append(Counted())\n"
        "    most = max(most, alive)\n"
        "until_full = math.prod(each + 1 for each in gc.get_threshold())\n"
        "print(freezer.thawed > 1, most < 3 * base + 20_000 + until_full)\n"
    )
    assert out == ["True", "True"]


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["alone", "worker"])
def test_the_command_does_so_with_workers_and_without(
    start: Callable[..., Any], tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text(
        "import gc\n"
        "async def handle(connection):\n"
        "    names = [type(each).__name__ for each in gc.callbacks]\n"
        "    connection.send_nowait(f'{names.count(\"Freezer\")} {gc.get_freeze_count() > 1000}'.encode())\n"
    )
    command = start("open", "app:handle", "127.0.0.1:0", *workers)
    with command.connect(command.read_port()) as client:
        assert client.recv(100) == b"1 True"
    assert command.stop()[0] == 0


def test_a_block_leaves_nothing_frozen_and_no_callback() -> None:
    from esockd_cli._freezing import tuned_collector  # noqa: PLC0415

    before = list(gc.callbacks)
    with tuned_collector():
        assert gc.get_freeze_count()
        assert len(gc.callbacks) == len(before) + 1
    assert gc.callbacks == before
    assert not gc.get_freeze_count()
