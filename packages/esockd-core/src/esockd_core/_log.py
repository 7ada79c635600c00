"""What a listener logs of what its clients do: with fields for machines, and bounded, for clients can do it at will."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from esockd_ratelimit import Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection import Connection

logger = logging.getLogger("esockd_core")

RATE: Final = Rate(1, burst=10)  # lines a second of one kind
LOG_FIELDS: Final = ("listener", "connection_id", "peer", "reason")
"""The attributes of a log record that say what it is about; what does not apply is missing."""


class _Kind:
    __slots__ = ("bucket", "left_out", "level")

    def __init__(self, level: int, clock: Callable[[], int]) -> None:
        self.bucket = TokenBucket(RATE, clock=clock)
        self.level = level
        self.left_out = 0


class ListenerLog:
    """Logs for one listener: of each kind ten lines at once and one a second after; how many were left out is told.

    Args:
        listener: Its name.
        clock: Gives nanoseconds.
    """

    __slots__ = ("_clock", "_kinds", "_listener")

    def __init__(self, listener: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._listener = listener
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}  # by message: as many as there are calls in this package

    def say(
        self,
        level: int,
        message: str,
        *arguments: object,
        connection: Connection | None = None,
        peer: object = None,
        reason: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Log, or count what is left out.

        Args:
            level: Of `logging`.
            message: The text with `%s` for the arguments; it is the kind as well.
            arguments: Its arguments.
            connection: What it is about; it gives the peer too.
            peer: Who it is about, where there is no connection.
            reason: The shutdown reason or counter.
            error: Logged with its traceback.
        """
        if not logger.isEnabledFor(level):
            return
        kind = self._kinds.get(message) or self._kinds.setdefault(message, _Kind(level, self._clock))
        if not kind.bucket.try_acquire():
            kind.left_out += 1
            return
        fields: dict[str, object] = {"listener": self._listener}
        if connection is not None:
            fields |= {"connection_id": connection.id, "peer": connection.peername}
        elif peer is not None:
            fields["peer"] = peer
        if reason is not None:
            fields["reason"] = reason
        text = f"listener %s: {message}"
        logger.log(level, text, self._listener, *arguments, exc_info=error, extra=fields)

    def tell_left_out(self) -> None:
        """Say how many lines were left out, of kinds that may log again; called a few times a second."""
        for message, kind in self._kinds.items():
            if kind.left_out and kind.bucket.try_acquire():
                left_out, kind.left_out = kind.left_out, 0
                logger.log(
                    kind.level,
                    'listener %s: %d more lines like "%s" were left out',
                    self._listener,
                    left_out,
                    message,
                    extra={"listener": self._listener},
                )
