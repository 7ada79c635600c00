"""Putting listeners back to what they were, where a change of several of them fails half-way."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from esockd_core import EsockdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_cli._opening import Opening

logger: logging.Logger = logging.getLogger("esockd_cli")


class Undo(AsyncExitStack):
    """What undoes the steps that were done, the last one first.

    Attributes:
        failed: The listeners that could not be put back to what they were, and why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[tuple[Opening, EsockdError]] = []

    def later(self, opening: Opening, step: Callable[[], Awaitable[object]]) -> None:
        """Do a step if something fails; if it fails itself, the other steps are still done."""

        async def attempt() -> None:
            try:
                await step()
            except EsockdError as error:
                logger.exception("listener %s could not be put back to what it was", opening)
                self.failed.append((opening, error))

        self.push_async_callback(attempt)
