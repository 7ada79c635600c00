"""Signals that come while a server is starting: those that are not to end it are remembered until it can obey."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

SERVERS: Final = ("open", "run")  # the commands that obey these signals
SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_came: list[int] = []


def remember_signals() -> None:
    """Remember signals from now on, each once. Imports need nothing else here, so that this is early."""
    for number in SIGNALS:
        signal.signal(number, _remember)


def take_signals() -> list[int]:
    """Those that came since, in their order."""
    taken = [*_came]
    _came.clear()
    return taken


def _remember(number: int, _: FrameType | None) -> None:
    if number not in _came:
        _came.append(number)
