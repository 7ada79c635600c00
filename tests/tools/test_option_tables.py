"""The tables of options in the pages are those of the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the tools are scripts, in no package that is installed

from tools.option_tables import PAGES, written  # noqa: E402


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_those_of_the_code(page: str) -> None:
    text = (ROOT / page).read_text()
    assert "<!-- options: " in text
    assert text == written(text), "run: make option-tables"


def test_a_table_that_is_out_of_date_is_seen() -> None:
    text = (ROOT / PAGES[0]).read_text()
    assert written(text.replace("| `max_connections` | `1024` |", "| `max_connections` | `1000` |")) == text
