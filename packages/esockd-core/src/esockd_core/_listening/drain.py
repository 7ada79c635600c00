"""How the connections of a closing listener end: they are asked, then cancelled, then reset, each step bounded."""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._errors import InvalidOption
from esockd_core._stats.reasons import SHUTDOWN, STUCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection.registry import Registry
    from esockd_core._connection.served import ServedConnection
    from esockd_core._connection.site import Site

logger = logging.getLogger("esockd_core")

CHUNK: Final = 64  # connections told something before the event loop gets its turn: some milliseconds
CANCEL_GRACE_S: Final = 1.0  # for a cancelled handler to end, and again after its socket was reset
CANCEL_EVERY_S: Final = 0.1  # cancellation is repeated, as in AnyIO: a handler that swallows one does not get to stay


class Ending:
    """How much time a closing listener gives its connections. Asking again may hurry it.

    Attributes:
        timeout_s: Seconds from asking a connection to end to cancelling its handler; None is for ever.
        rate_per_s: Connections asked to end in a second; None is all at once.
    """

    def __init__(self, timeout_s: float | None, rate_per_s: float | None = None) -> None:
        self.timeout_s = timeout_s
        self.rate_per_s = rate_per_s

    def ask(self, timeout_s: float | None, rate_per_s: float | None, *, again: bool) -> None:
        """Take over a timeout and a rate; when asked `again`, only if they are quicker.

        Raises:
            InvalidOption: If one of them is not a number in its bounds.
        """
        if not _is_number(timeout_s) or not (timeout_s is None or timeout_s >= 0):
            raise InvalidOption("it takes seconds, 0 or more, or None", option="timeout", value=timeout_s)
        if not _is_number(rate_per_s) or not (rate_per_s is None or rate_per_s > 0):
            raise InvalidOption("it takes connections a second, more than 0, or None", option="rate", value=rate_per_s)
        if again:
            timeouts = [each for each in (timeout_s, self.timeout_s) if each is not None]
            timeout_s = min(timeouts, default=None)
            rate_per_s = None if None in (rate_per_s, self.rate_per_s) else max(rate_per_s or 0, self.rate_per_s or 0)
        self.timeout_s = timeout_s
        self.rate_per_s = rate_per_s


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


async def drain_connections(site: Site, ending: Ending) -> None:
    """Ask every connection to end, and return when each has ended or was cancelled."""
    registry = site.registry
    untold = deque(registry)
    told: deque[tuple[ServedConnection, float]] = deque()
    next_tell = anyio.current_time()
    while registry:
        now = anyio.current_time()
        tell_every_s = 1 / ending.rate_per_s if ending.rate_per_s else 0.0
        next_tell = min(next_tell, now + tell_every_s)  # a second call may ask for a higher rate
        for _ in range(min(CHUNK, len(untold))):
            if now < next_tell:
                break
            connection = untold.popleft()
            if connection in registry:
                connection.request_draining()
                told.append((connection, now))
                next_tell += tell_every_s
        for _ in range(min(CHUNK, len(told))):
            connection, told_at = told[0]
            if connection in registry:
                if ending.timeout_s is None or now < told_at + ending.timeout_s:
                    break
                connection.cancel_handler(SHUTDOWN)
            told.popleft()
        if not untold and not told:
            return  # to wait for those that were cancelled, no longer than `end_connections` does
        if (untold and next_tell <= now) or (told and _is_due(registry, told[0], ending, now)):
            await checkpoint()
            continue
        if not (untold or told):
            break  # what is left was cancelled and does not end by that: the caller insists
        wake_at = next_tell if untold else math.inf
        if told and ending.timeout_s is not None:
            wake_at = min(wake_at, told[0][1] + ending.timeout_s)
        with anyio.move_on_after(wake_at - now):
            await registry.changed()


def _is_due(registry: Registry, first: tuple[ServedConnection, float], ending: Ending, now: float) -> bool:
    connection, told_at = first
    ended = connection not in registry
    return ended or (ending.timeout_s is not None and now >= told_at + ending.timeout_s)


async def end_connections(site: Site) -> None:
    """End the remaining connections by force: cancel their handlers, then reset their sockets, then give up on them.

    A handler that is still alive then is logged with its stack and counted as `stuck`.
    """
    await _insist(site.registry, lambda connection: connection.cancel_handler(SHUTDOWN))
    await _insist(site.registry, _cancel_and_abort)
    for connection in site.registry:
        with suppress(Exception):  # of a log that cannot be written
            logger.error(
                "listener %s: the handler of connection %d from %s does not end; it is at:\n%s",
                site.name,
                connection.id,
                connection.peername,
                connection.handler_stack(),
            )
        site.registry.ended(connection, STUCK)
    # Refused with a farewell, they lingered and were never connections; or made by a handler that does not end.
    for left in [*site.watch.closing, *site.watch.upstreams]:
        left.close_socket()


def _cancel_and_abort(connection: ServedConnection) -> None:
    connection.abort(SHUTDOWN)
    connection.cancel_handler(SHUTDOWN)


async def _insist(registry: Registry, act: Callable[[ServedConnection], None]) -> None:
    """Do this to every connection, again and again during the grace. Return early when none is left."""
    with anyio.move_on_after(CANCEL_GRACE_S):
        while registry:
            for position, connection in enumerate(registry):
                act(connection)
                if position % CHUNK == CHUNK - 1:
                    await checkpoint()
            with anyio.move_on_after(CANCEL_EVERY_S):
                while registry:
                    await registry.changed()
