"""What is written to a terminal turns the one picture into the other, and is no more than that takes."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from esockd_cli.top.canvas import COLORS, MONOCHROME, Canvas, Row, Style, changes, choose_sgr
from esockd_cli.top.text import PAD, to_cells

WIDTH, HEIGHT = 12, 3
TOKEN = re.compile(r"\x1b\[(?P<move>\d+;\d+)H|\x1b\[(?P<sgr>[\d;]*)m|(?P<clear>\x1b\[2J)|(?P<text>[^\x1b])")
STYLES = {sgr: style for style, sgr in COLORS.items()}

writes = st.lists(
    st.tuples(
        st.integers(-1, WIDTH), st.integers(-1, HEIGHT), st.text(st.sampled_from("ab \u8fb9"), max_size=6),
        st.sampled_from(Style),
    ),
    max_size=12,
)  # fmt: skip


class Screen:
    """As much of a terminal as the dashboard needs."""

    def __init__(self) -> None:
        self.cells = [["?"] * WIDTH for _ in range(HEIGHT)]
        self.styles = [["?"] * WIDTH for _ in range(HEIGHT)]
        self.x = self.y = 0
        self.style = "?"

    def write(self, text: str) -> None:
        position = 0
        while position < len(text):
            token = TOKEN.match(text, position)
            assert token is not None, text[position:]
            position = token.end()
            if token["clear"]:
                self.cells = [[" "] * WIDTH for _ in range(HEIGHT)]
                self.styles = [[Style.PLAIN] * WIDTH for _ in range(HEIGHT)]
            elif token["move"]:
                self.y, self.x = (int(number) - 1 for number in token["move"].split(";"))
            elif token["sgr"] is not None:
                self.style = STYLES[token["sgr"]]
            else:
                for cell in to_cells(token["text"]):
                    self.cells[self.y][self.x] = cell
                    self.styles[self.y][self.x] = self.style
                    self.x += 1

    @property
    def rows(self) -> list[Row]:
        return [Row("".join(cells), "".join(styles)) for cells, styles in zip(self.cells, self.styles, strict=True)]


def draw(pieces: list[tuple[int, int, str, Style]]) -> list[Row]:
    canvas = Canvas(WIDTH, HEIGHT)
    for x, y, text, style in pieces:
        canvas.area.put(x, y, text, style)
    return canvas.rows()


@given(writes, writes)
def test_the_changes_turn_one_picture_into_the_next(
    before: list[tuple[int, int, str, Style]], after: list[tuple[int, int, str, Style]]
) -> None:
    screen, old, new = Screen(), draw(before), draw(after)
    screen.write(changes(None, old, COLORS))
    assert screen.rows == old
    screen.write(changes(old, new, COLORS))
    assert screen.rows == new


def test_nothing_is_written_where_nothing_changed() -> None:
    rows = draw([(0, 0, "abc", Style.BOLD)])
    assert changes(rows, rows, COLORS) == ""


def test_only_what_changed_is_written() -> None:
    old = draw([(0, 0, "rate 100", Style.PLAIN), (0, 2, "same", Style.PLAIN)])
    new = draw([(0, 0, "rate 101", Style.PLAIN), (0, 2, "same", Style.PLAIN)])
    assert changes(old, new, COLORS) == "\x1b[1;8H\x1b[0m1"


def test_a_wide_character_is_written_whole() -> None:
    old, new = draw([(0, 0, "\u8fb9", Style.PLAIN)]), draw([(0, 0, "\u7f18", Style.PLAIN)])
    assert old[0].text.startswith(f"\u8fb9{PAD}")
    assert changes(old, new, COLORS) == "\x1b[1;1H\x1b[0m\u7f18"


def test_a_terminal_without_unicode_gets_ascii_of_the_same_width() -> None:
    text = changes(None, draw([(0, 0, "\u8fb9x\u00e9", Style.PLAIN)]), COLORS, ascii_only=True)
    assert text.isascii()
    assert "??x?   " in text


def test_text_that_reaches_beyond_an_area_is_cut_off() -> None:
    canvas = Canvas(10, 2)
    part = canvas.area.part(2, 0, 5, 1)
    assert part.put(3, 0, "abcdef") == 5
    assert part.put_right(5, 1, [("below", Style.PLAIN)]) == 0
    assert part.put(7, 0, "outside") == 7
    assert [row.text for row in canvas.rows()] == ["     ab   ", " " * 10]


def test_no_color_leaves_bold_dim_and_reverse() -> None:
    assert choose_sgr({"TERM": "xterm"}) is COLORS
    for environment in ({"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "vt220"}):
        assert choose_sgr(environment) is MONOCHROME
    assert choose_sgr({"TERM": "xterm"}, no_color=True) is MONOCHROME
    assert set(MONOCHROME) == set(Style)
    assert set(MONOCHROME.values()) == {"0", "0;1", "0;2", "0;7"}
