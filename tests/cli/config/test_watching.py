"""Seeing that files change."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest

from esockd_cli.config.watching import changes_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

LOOK_EVERY_S = 0.001


async def test_a_change_while_the_one_before_is_dealt_with_is_told_too(tmp_path: Path) -> None:
    first, second = tmp_path / "edge.toml", tmp_path / "key.pem"
    first.write_text("1")
    files = [str(first)]
    told = 0
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def change() -> None:
                first.write_text("22")

            tasks.start_soon(change)  # runs when the first look was taken
            async with aclosing(changes_of(lambda: files, LOOK_EVERY_S)) as changes:
                async for _ in changes:
                    told += 1
                    if told == 1:  # the file names another one now, and changes again before the next look
                        second.write_text("1")
                        files.append(str(second))
                        first.write_text("333")
                    elif told == 2:
                        second.write_text("22")
                        files.remove(str(first))
                    else:
                        break
    assert told == 3
