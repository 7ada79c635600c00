"""The log of a listener about its clients. It has fields for machines, and is bounded, because clients can cause it."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from esockd_ratelimit import Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._options.listener import PeerName

logger = logging.getLogger("esockd_core")

RATE: Final = Rate(1, burst=10)  # lines a second of one kind
LOG_FIELDS: Final = ("listener", "connection_id", "peer", "reason")
"""The attributes of a log record that say what it is about. Those that do not apply are missing."""


class Logged(Protocol):
    """A connection, as far as the log describes it."""

    id: int

    @property
    def peername(self) -> PeerName:
        """The client."""
        ...


class _Kind:
    __slots__ = ("bucket", "left_out", "level")

    def __init__(self, level: int, clock: Callable[[], int]) -> None:
        self.bucket = TokenBucket(RATE, clock=clock)
        self.level = level
        self.left_out = 0


class ListenerLog:
    """Logs for one listener: of each kind ten lines at once, then one a second, with the number of those left out.

    Args:
        listener: The listener's name.
        clock: Returns nanoseconds.
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
        connection: Logged | None = None,
        peer: object = None,
        reason: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Log a line, or count it as left out.

        Args:
            level: A level of `logging`.
            message: The text with `%s` for the arguments. It is also the kind of the line.
            arguments: The arguments of the text.
            connection: The connection that it is about, which includes the peer.
            peer: The peer that it is about, if there is no connection.
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
        with suppress(Exception):  # of a handler of the program's, and no reason to stop serving
            logger.log(level, text, self._listener, *arguments, exc_info=error, extra=fields)

    def tell_left_out(self, *, is_end: bool = False) -> None:
        """Log how many lines were left out, for the kinds that may log again. Called a few times a second.

        Args:
            is_end: Tell of all kinds: the listener is over.
        """
        for message, kind in self._kinds.items():
            if kind.left_out and (is_end or kind.bucket.try_acquire()):
                left_out, kind.left_out = kind.left_out, 0
                with suppress(Exception):
                    logger.log(
                        kind.level,
                        'listener %s: %d more lines like "%s" were left out',
                        self._listener,
                        left_out,
                        message,
                        extra={"listener": self._listener},
                    )
