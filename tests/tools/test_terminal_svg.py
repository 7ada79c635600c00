"""Pictures of terminals: well-formed, with every word in its place and its colour."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.terminal_svg import CELL_WIDTH, COLORS, DIM, MARGIN, Look, read_row, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_a_row_is_read_with_its_looks_which_go_on_into_the_next() -> None:
    cells, look = read_row("a\x1b[1;32mb\x1b[0;7mc", Look())
    assert [cell.text for cell in cells] == ["a", "b", "c"]
    assert cells[1].look == Look(color=COLORS[2], is_bold=True)
    assert look == Look(is_reverse=True)
    assert read_row("d\x1b[39md", look)[0][0].look == look


def test_words_stand_in_their_columns_and_blocks_are_rectangles() -> None:
    root = ET.fromstring(
        to_svg("\x1b[2mup\x1b[0m   <&>  \x1b[32m\u2584\u2584\u258c\x1b[0m\n\x1b[7m x \x1b[0m", 20, "a & b")
    )
    texts = {text.text: text for text in root.iter(f"{SVG}text")}
    assert set(texts) == {"a & b", "up", "<&>", "x"}
    assert texts["up"].get("fill") == DIM
    assert float(texts["<&>"].get("x", "0")) == round(MARGIN + 5 * CELL_WIDTH, 1)
    green = [rect for rect in root.iter(f"{SVG}rect") if rect.get("fill") == COLORS[2]]
    assert [rect.get("width") for rect in green] == ["17.1", "4.5"]
