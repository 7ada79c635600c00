"""Keys, from the bytes that a terminal sends for them."""

from __future__ import annotations

import codecs
from typing import Final

# ECMA-48 and what terminals made of it; both spellings of the arrows, since programs before may have left either.
SEQUENCES: Final = {
    **{f"\x1b{intro}{final}": name for intro in "[O" for final, name in
       (("A", "up"), ("B", "down"), ("C", "right"), ("D", "left"), ("H", "home"), ("F", "end"))},
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[5~": "pgup",
    "\x1b[6~": "pgdn",
    "\x1b[7~": "home",
    "\x1b[8~": "end",
    "\x1b[Z": "backtab",
}  # fmt: skip
CONTROLS: Final = {
    "\t": "tab",
    "\n": "enter",
    "\r": "enter",
    "\x08": "backspace",
    "\x7f": "backspace",
    "\x0c": "redraw",
    "\x15": "erase",
    " ": "space",
}
ESCAPE: Final = "\x1b"
MAX_SEQUENCE: Final = 16  # longer ones are no keys


class KeyDecoder:
    """Turns bytes into keys: a character as itself, any other key by its name; what it does not know is dropped."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._waiting = ""

    @property
    def is_waiting(self) -> bool:
        """Whether an escape has come that may be a key or the beginning of one: ask `flush` if nothing follows soon."""
        return bool(self._waiting)

    def feed(self, data: bytes) -> list[str]:
        """Take bytes, and give the keys that are complete."""
        keys = []
        text, self._waiting = self._waiting + self._decoder.decode(data), ""
        while text:
            length = _sequence_length(text) if text[0] == ESCAPE else 1
            if length is None:
                self._waiting = text
                break
            keys.append(_key(text[:length]))
            text = text[length:]
        return [key for key in keys if key]

    def flush(self) -> list[str]:
        """Give the escape that nothing followed as the key it was."""
        waiting, self._waiting = self._waiting, ""
        return ["esc"] if waiting == ESCAPE else []


def _key(text: str) -> str:
    if len(text) > 1:
        return SEQUENCES.get(text, "")
    return CONTROLS.get(text) or (text if text.isprintable() else "esc" if text == ESCAPE else "")


def _sequence_length(text: str) -> int | None:
    """How many characters a control sequence has; None when it is not complete."""
    if len(text) == 1:
        return None
    if text[1] == "O":
        return 3 if len(text) >= 3 else None
    if text[1] != "[":
        return 1 if text[1] == ESCAPE else 2
    for index, character in enumerate(text[2:MAX_SEQUENCE], start=2):
        if "@" <= character <= "~":
            return index + 1
    return None if len(text) < MAX_SEQUENCE else MAX_SEQUENCE
