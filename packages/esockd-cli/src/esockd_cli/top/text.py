"""Text as it stands on a screen: cells of a terminal, and numbers in few of them."""

from __future__ import annotations

import time
import unicodedata
from typing import Final

from esockd_cli._summary import format_bytes as format_size

PAD: Final = "\0"  # the second cell of a wide character
UNKNOWN: Final = "?"


def to_cells(text: str) -> str:
    """Make text safe to show, with one character for each cell of the terminal.

    A wide character (UAX #11) is followed by `PAD`. What is no letter of its own becomes a question mark: control
    characters, escapes, marks that combine, and those that turn the direction of writing. Cells stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    cells = ""
    for character in unicodedata.normalize("NFC", text):
        if not (character == PAD and cells.endswith(PAD)):
            cells += _cell(character)
    return cells


def _cell(character: str) -> str:
    category = unicodedata.category(character)
    # Hangul vowels and endings take no cell of their own; what can be composed has been.
    if category[0] in "CM" or "\u1160" <= character <= "\u11ff" or "\ud7b0" <= character <= "\ud7ff":
        return UNKNOWN
    if category[0] == "Z":
        return " "
    return character + PAD if unicodedata.east_asian_width(character) in "WF" else character


def clip(cells: str, width: int, ellipsis: str = "…") -> str:
    """Cut cells down to a width, with an ellipsis at the end where something is missing."""
    if len(cells) <= width:
        return cells
    return _head(cells, width - len(ellipsis)) + ellipsis if width > 0 else ""


def clip_middle(cells: str, width: int, ellipsis: str = "…") -> str:
    """Cut cells down to a width in the middle: both ends of an address say something."""
    if len(cells) <= width or width < 5:
        return clip(cells, width, ellipsis)
    tail = (width - 1) // 2
    end = cells[-tail:]
    return _head(cells, width - 1 - tail) + ellipsis + (end if end[0] != PAD else " " + end[1:])


def _head(cells: str, width: int) -> str:
    head = cells[:width]
    # Half of a wide character is none.
    return head[:-1] + " " if head and cells[width : width + 1] == PAD else head


def format_count(count: int) -> str:
    """A count in at most 7 cells: 999, 12,345, 123,456, 1.2M, 340G."""
    if abs(count) < 1_000_000:
        return f"{count:,}"
    return _scaled(float(count))


def format_short(count: int) -> str:
    """A count in at most 4 cells: 999, 1.2k, 123k."""
    return str(count) if abs(count) < 1_000 else _scaled(float(count))


def format_rate(per_s: float) -> str:
    """A number a second in at most 6 cells: 0, 0.4, 12, 4,500, 120k."""
    if per_s < 9.95:
        return "0" if per_s < 0.05 else f"{per_s:.1f}"
    return f"{per_s:,.0f}" if per_s < 99_999.5 else _scaled(per_s)


def _scaled(number: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5:
            return f"{number:.1f}{unit}" if abs(number) < 9.95 else f"{number:.0f}{unit}"
        number /= 1_000
    return f"{number:.0f}E"


def format_bytes(count: float) -> str:
    """Bytes, or bytes a second, in at most 8 cells: 0 B, 1.5 KiB, 1023 GiB."""
    return format_size(round(count))


def format_duration(seconds: float, micro: str = "µ") -> str:
    """A short time: 100 µs, 2.5 ms, 1 s; infinity is more than a histogram has room for."""
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f} {micro}s"
    if seconds < 0.999_5:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"


def format_age(seconds: float) -> str:
    """A long time by its two largest units: 5s, 12m 05s, 4h 12m, 3d 04h."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole // 60 % 60:02}m"
    days = whole // 86_400
    return f"{days}d {whole // 3600 % 24:02}h" if days < 100 else f"{days:,}d"


def format_clock(at: float) -> str:
    """The time of day here, of seconds since the epoch."""
    return time.strftime("%H:%M:%S", time.localtime(at))
