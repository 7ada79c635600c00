"""What the person at the keyboard has chosen, and what keys do to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from esockd_cli.top.table import Sort

if TYPE_CHECKING:
    from esockd_cli.top.frame import ListenerKey

INTERVALS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MAX_FILTER: Final = 64


class View(IntEnum):
    """The numbered views."""

    LISTENERS = 1
    TRAFFIC = 2
    REJECTS = 3
    LATENCY = 4
    CONNECTIONS = 5


@dataclass(slots=True)
class State:
    """The choices.

    Attributes:
        view: Which view is shown.
        has_detail: Whether the selected listener's details are.
        is_helping: Whether the help is.
        by_worker: Whether each worker is shown by itself.
        is_paused: Whether the picture stands still.
        interval_s: Seconds from one frame to the next.
        filters: What rows must contain to be shown: those of listeners, and those of connections.
        draft: A filter while it is typed; None otherwise.
        sorts: How each view is sorted.
        selected: The listener with the cursor; None for the first.
        connection: The connection with the cursor, by id; None for the first.
    """

    view: View = View.LISTENERS
    has_detail: bool = False
    is_helping: bool = False
    by_worker: bool = False
    is_paused: bool = False
    interval_s: float = 1.0
    draft: str | None = None
    sorts: dict[View, Sort] = field(default_factory=dict)
    filters: dict[bool, str] = field(default_factory=dict)
    selected: ListenerKey | None = None
    connection: int | None = None

    @property
    def sort(self) -> Sort:
        """How this view is sorted."""
        return self.sorts.get(self.view, Sort())

    @property
    def filter_text(self) -> str:
        """What a row of this view must contain to be shown."""
        return self.filters.get(self.view == View.CONNECTIONS, "")

    @filter_text.setter
    def filter_text(self, text: str) -> None:
        self.filters[self.view == View.CONNECTIONS] = text

    def change_interval(self, steps: int) -> None:
        """Go to the next longer or shorter interval."""
        longer = [each for each in INTERVALS_S if each > self.interval_s]
        shorter = [each for each in INTERVALS_S if each < self.interval_s]
        if steps > 0 and longer:
            self.interval_s = longer[0]
        elif steps < 0 and shorter:
            self.interval_s = shorter[-1]

    def edit_filter(self, key: str) -> None:
        """Take a key while a filter is typed: it holds while it is typed, and Esc takes it back."""
        draft = self.draft or ""
        match key:
            case "enter":
                self.draft = None
            case "esc":
                self.draft, self.filter_text = None, ""
            case "backspace":
                self.draft = self.filter_text = draft[:-1]
            case "erase":
                self.draft = self.filter_text = ""
            case "space":
                self.draft = self.filter_text = f"{draft} "[:MAX_FILTER]
            case _ if len(key) == 1:
                self.draft = self.filter_text = f"{draft}{key}"[:MAX_FILTER]
