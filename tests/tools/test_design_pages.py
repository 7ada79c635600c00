"""The page about defaults gives a reason for each option that is not off."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the tools are scripts, in no package that is installed

from tools.option_tables import default  # noqa: E402

from esockd_core import OPTIONS  # noqa: E402

OFF = ("", "`None`", "`False`", "`()`", "`{}`")
PAGE = (ROOT / "docs/design/defaults.md").read_text()


def test_each_option_that_is_on_has_its_default_and_a_reason() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (`.*?`) \| .+ \|$", PAGE, re.MULTILINE)
    on = [(option.name, default(option)) for option in OPTIONS.values() if default(option) not in OFF]
    assert sorted(rows) == sorted(on)


def test_each_option_that_is_named_as_off_is_off() -> None:
    named = re.findall(r"`([a-z_.]+)`", " ".join(re.findall(r"^\| (`[^|]*) \|[^|]*\|$", PAGE, re.MULTILINE)))
    assert named
    assert [name for name in named if default(OPTIONS[name]) not in OFF] == []
