"""Where a replay is: playing, paused, stepping, seeking, at a speed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from esockd_cli.top.frame import Frame, Lost

SPEEDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
PAST: Final = 64  # moments before the one gone to, for its rates and trends: about what a chart is wide


class Moments(Protocol):
    """What can be played."""

    def __len__(self) -> int: ...

    def moment(self, index: int) -> Frame | Lost:
        """One of them."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where a replay is.

    Attributes:
        passed_s: Seconds of the recording before this moment.
        length_s: Seconds of the whole recording.
        speed: Seconds of the recording in one.
        is_playing: Whether it goes on by itself.
    """

    passed_s: float
    length_s: float
    speed: float
    is_playing: bool


class Player:
    """Plays moments in their own time.

    Attributes:
        index: The moment shown.
        speed: Seconds of the recording in one.
        is_paused: Whether it stands still.
    """

    def __init__(self, moments: Moments, speed: float = 1.0) -> None:
        self._moments = moments
        self.index: int = 0
        self.speed: float = speed
        self.is_paused: bool = False

    @property
    def is_at_end(self) -> bool:
        """Whether the last moment is shown."""
        return self.index == len(self._moments) - 1

    @property
    def position(self) -> Position:
        """Where it is."""
        begin, end = self._at(0), self._at(len(self._moments) - 1)
        is_playing = not (self.is_paused or self.is_at_end)
        return Position(self._at(self.index) - begin, end - begin, self.speed, is_playing)

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next moment; None while it stands still."""
        if self.is_paused or self.is_at_end:
            return None
        return max(0.0, self._at(self.index + 1) - self._at(self.index)) / self.speed

    def past(self) -> list[Frame | Lost]:
        """The moments up to the one shown that its rates and trends come from, oldest first."""
        return [self._moments.moment(index) for index in range(max(0, self.index - PAST), self.index + 1)]

    def advance(self) -> Frame | Lost:
        """Go to the next moment, and give it."""
        self.index += 1
        return self._moments.moment(self.index)

    def step(self, count: int) -> None:
        """Go some moments forth or back, and stand still."""
        self.is_paused = True
        self.index = max(0, min(self.index + count, len(self._moments) - 1))

    def seek(self, seconds: float) -> None:
        """Go forth or back in time: at least one moment, and not beyond the ends."""
        wanted = self._at(self.index) + seconds
        if seconds < 0:
            self.index = max(0, min(bisect_right(self._range(), wanted, key=self._at), self.index) - 1)
        else:
            first = bisect_left(self._range(), wanted, key=self._at)
            self.index = min(max(first, self.index + 1), len(self._moments) - 1)

    def go_to_end(self, *, is_last: bool) -> None:
        """Go to the first or the last moment."""
        self.index = len(self._moments) - 1 if is_last else 0

    def change_speed(self, steps: int) -> None:
        """Play faster or slower."""
        nearest = min(range(len(SPEEDS)), key=lambda index: abs(SPEEDS[index] - self.speed))
        self.speed = SPEEDS[max(0, min(nearest + steps, len(SPEEDS) - 1))]

    def _range(self) -> range:
        return range(len(self._moments))

    def _at(self, index: int) -> float:
        return self._moments.moment(index).at
