"""The kinds of values that options take: what is allowed, and how a value is written as text."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Final

from esockd_core._checks import did_you_mean, is_number, is_whole, one_of
from esockd_core._errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

NO_BOUND: Final = ("none", "infinity")  # both are None; esockd calls it infinity
DURATION: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]+)", re.ASCII | re.IGNORECASE)
SECONDS: Final = {
    "us": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1000),
    **{unit: Fraction(seconds) for unit, seconds in (("s", 1), ("m", 60), ("min", 60), ("h", 3600), ("d", 86_400))},
}
SIZE: Final = re.compile(r"(\d{1,15})\s*([a-z]*)", re.ASCII | re.IGNORECASE)
BYTES: Final = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
SWITCH: Final = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """A kind of values of options.

    Attributes:
        is_optional: Whether None is one of them, written "none".
        unit: What a number counts; empty if values are not numbers.
        is_list: Whether the option takes several values, of which `parse` reads one.
        is_text: Whether values can be written as text.
    """

    TAKES: ClassVar[str] = ""
    TAKES_TEXT: ClassVar[str] = ""
    PLACEHOLDER: ClassVar[str] = ""

    is_optional: bool = False
    unit: ClassVar[str] = ""
    is_list: ClassVar[bool] = False
    is_text: ClassVar[bool] = True

    @property
    def takes(self) -> str:
        """The values allowed in Python besides None, such as "seconds, more than 0"."""
        return self.TAKES

    @property
    def takes_text(self) -> str:
        """The texts allowed besides "none"."""
        return self.TAKES_TEXT or self.takes

    @property
    def placeholder(self) -> str:
        """The placeholder for a value in a synopsis, such as "TIME" or "close|backlog"."""
        return self.PLACEHOLDER

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a value other than None is allowed."""

    def read(self, text: str) -> Any:
        """The value that a text other than "none" stands for, allowed or not.

        Raises:
            ValueError: If the text does not stand for a value.
        """
        return text

    def write(self, value: Any) -> str:
        """The text of a value other than None."""
        return str(value)

    def guess(self, given: object) -> str | None:
        """A hint at what may have been meant by a wrong value."""
        del given
        return None

    def check(self, option: str, value: object) -> None:
        """Refuse a value that is not allowed.

        Raises:
            InvalidOption: If the value is not allowed.
        """
        if not (self.is_optional if value is None else self.holds(value)):
            raise self._refusal(option, value, self.takes, "None")

    def parse(self, option: str, text: str) -> Any:
        """Read a value as it is written on a command line.

        Raises:
            InvalidOption: If the value is not allowed.
        """
        text = text.strip()
        if self.is_optional and text.lower() in NO_BOUND:
            return None
        try:
            if self.holds(value := self.read(text)):
                return value
        except ValueError:
            pass
        raise self._refusal(option, text, self.takes_text, "none")

    def format(self, value: Any) -> str:
        """Write a value as `parse` reads it."""
        return "none" if value is None else self.write(value)

    def _refusal(self, option: str, given: object, allowed: str, none: str) -> InvalidOption:
        reason = f"it takes {allowed}{f', or {none}' if self.is_optional else ''}"
        return InvalidOption(reason, option=option, value=given, hint=self.guess(given))


def _bounds(least: float | None, most: float | None, write: Callable[[Any], str] = str) -> str:
    if least is None:
        return ", more than 0"
    return f", {write(least)} or more" if most is None else f", {write(least)} to {write(most)}"


@dataclass(frozen=True, kw_only=True)
class Whole(Kind):
    """A whole number from `least` to `most`."""

    least: int = 1
    most: int | None = None
    PLACEHOLDER = "N"

    @property
    def takes(self) -> str:
        return f"a whole number{_bounds(self.least, self.most)}"

    def holds(self, value: Any) -> bool:
        return is_whole(value) and value >= self.least and (self.most is None or value <= self.most)

    def read(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise ValueError
        return int(text)


class Size(Whole):
    """A number of bytes, written as such or in KiB, MiB or GiB."""

    unit = "bytes"
    PLACEHOLDER = "BYTES"

    @property
    def takes_text(self) -> str:
        return f"a size such as 64KiB{_bounds(self.least, self.most, self.write)}"

    def read(self, text: str) -> int:
        found = SIZE.fullmatch(text)
        if found is None or found[2].lower() not in BYTES:
            raise ValueError
        return int(found[1]) * BYTES[found[2].lower()]

    def write(self, value: int) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if value and value % BYTES[unit.lower()] == 0:
                return f"{value // BYTES[unit.lower()]}{unit}"
        return str(value)


@dataclass(frozen=True, kw_only=True)
class Duration(Kind):
    """Seconds, written with a unit.

    Attributes:
        least: The shortest; None is more than 0.
        most: The longest; None is without a bound.
    """

    least: float | None = None
    most: float | None = None
    unit = "seconds"
    PLACEHOLDER = "TIME"

    @property
    def takes(self) -> str:
        return f"seconds{_bounds(self.least, self.most)}"

    @property
    def takes_text(self) -> str:
        return f"a duration such as 30s{_bounds(self.least, self.most, self.write)}"

    def holds(self, value: Any) -> bool:
        if not is_number(value):
            return False
        is_long_enough = value > 0 if self.least is None else value >= self.least
        return bool(is_long_enough and (self.most is None or value <= self.most))

    def read(self, text: str) -> float:
        if text == "0":
            return 0
        found = DURATION.fullmatch(text)
        if found is None or found[2].lower() not in SECONDS:
            raise ValueError
        seconds = Fraction(found[1]) * SECONDS[found[2].lower()]
        return int(seconds) if seconds.denominator == 1 else float(seconds)

    def write(self, value: float) -> str:
        exact = Fraction(str(value))
        for unit in ("d", "h", "m", "s", "ms"):
            if exact and (exact / SECONDS[unit]).denominator == 1:
                return f"{exact / SECONDS[unit]}{unit}"
        return f"{value:.9f}".rstrip("0") + "s" if exact else "0"

    def guess(self, given: object) -> str | None:
        is_bare = isinstance(given, str) and re.fullmatch(r"\d+(\.\d+)?", given, re.ASCII)
        return f'Did you mean "{given}s"?' if is_bare else None


@dataclass(frozen=True, kw_only=True)
class WholeSeconds(Duration):
    """Whole seconds, as options of the kernel's sockets take them; None is the system's own setting."""

    least: float | None = 1
    is_optional: bool = True

    @property
    def takes(self) -> str:
        return f"whole {super().takes}"

    @property
    def takes_text(self) -> str:
        return super().takes_text.replace("a duration", "a duration in whole seconds")

    def holds(self, value: Any) -> bool:
        return is_whole(value) and super().holds(value)


class Switch(Kind):
    """True or False, written "on" or "off"."""

    TAKES = "True or False"
    TAKES_TEXT = "on or off"
    PLACEHOLDER = "on|off"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool)

    def read(self, text: str) -> bool:
        if text.lower() not in SWITCH:
            raise ValueError
        return SWITCH[text.lower()]

    def write(self, value: bool) -> str:
        return "on" if value else "off"


@dataclass(frozen=True)
class Choice(Kind):
    """One of several words."""

    words: tuple[str, ...]

    @property
    def takes(self) -> str:
        return one_of([f'"{word}"' for word in self.words])

    @property
    def takes_text(self) -> str:
        return one_of(self.words)

    @property
    def placeholder(self) -> str:
        return "|".join(self.words)

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.words

    def guess(self, given: object) -> str | None:
        return did_you_mean(given.lower(), self.words) if isinstance(given, str) and given.isalpha() else None
