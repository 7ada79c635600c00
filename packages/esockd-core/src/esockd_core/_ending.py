"""How the connections of a closing listener end: told, then cancelled, then closed, each step bounded."""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._connection import SHUTDOWN, STUCK
from esockd_core._errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._carried import Carried
    from esockd_core._service import Service

logger = logging.getLogger("esockd_core")

CHUNK: Final = 256  # connections told something before the event loop gets its turn
CANCEL_GRACE_S: Final = 1.0  # for a cancelled handler to end, and again for one whose socket was closed under it
CANCEL_EVERY_S: Final = 0.1  # cancellation is repeated, as in AnyIO: swallowing it once is no way to stay


class Ending:
    """How much time a closing listener gives its connections; asking again may hurry it.

    Attributes:
        timeout_s: Seconds from telling a connection to cancelling its handler; None is for ever.
        rate_per_s: Connections told in a second; None is all at once.
    """

    def __init__(self, timeout_s: float | None, rate_per_s: float | None = None) -> None:
        self.timeout_s = timeout_s
        self.rate_per_s = rate_per_s

    def ask(self, timeout_s: float | None, rate_per_s: float | None, *, again: bool) -> None:
        """Take over a timeout and a pace; `again`, only where they are quicker.

        Raises:
            InvalidOption: One of them is no number that makes sense.
        """
        if not _is_number(timeout_s) or not (timeout_s is None or timeout_s >= 0):
            raise InvalidOption(f"timeout is {timeout_s!r}; it takes seconds, 0 or more, or None")
        if not _is_number(rate_per_s) or not (rate_per_s is None or rate_per_s > 0):
            raise InvalidOption(f"rate is {rate_per_s!r}; it takes connections a second, more than 0, or None")
        if again:
            timeouts = [each for each in (timeout_s, self.timeout_s) if each is not None]
            timeout_s = min(timeouts, default=None)
            rate_per_s = None if None in (rate_per_s, self.rate_per_s) else max(rate_per_s or 0, self.rate_per_s or 0)
        self.timeout_s = timeout_s
        self.rate_per_s = rate_per_s


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


async def drain_connections(service: Service, ending: Ending) -> None:
    """Tell every connection to come to its end, and return when each has ended or was cancelled."""
    untold = deque(service.connections.values())
    told: deque[tuple[Carried, float]] = deque()
    next_tell = anyio.current_time()
    while service.connections:
        now = anyio.current_time()
        tell_every_s = 1 / ending.rate_per_s if ending.rate_per_s else 0.0
        next_tell = min(next_tell, now + tell_every_s)  # whoever asked again may want it faster
        for _ in range(min(CHUNK, len(untold))):
            if now < next_tell:
                break
            connection = untold.popleft()
            if connection.id in service.connections:
                connection.request_draining()
                told.append((connection, now))
                next_tell += tell_every_s
        for _ in range(min(CHUNK, len(told))):
            connection, told_at = told[0]
            if connection.id in service.connections:
                if ending.timeout_s is None or now < told_at + ending.timeout_s:
                    break
                connection.cancel_handler(SHUTDOWN)
            told.popleft()
        if not untold and not told:
            return  # to wait for those that were cancelled, no longer than `end_connections` does
        if (untold and next_tell <= now) or (told and _is_due(service, told[0], ending, now)):
            await checkpoint()
            continue
        if not (untold or told):
            break  # what is left was cancelled and does not end by that: the caller insists
        wake_at = next_tell if untold else math.inf
        if told and ending.timeout_s is not None:
            wake_at = min(wake_at, told[0][1] + ending.timeout_s)
        with anyio.move_on_after(wake_at - now):
            await service.changed()


def _is_due(service: Service, first: tuple[Carried, float], ending: Ending, now: float) -> bool:
    connection, told_at = first
    ended = connection.id not in service.connections
    return ended or (ending.timeout_s is not None and now >= told_at + ending.timeout_s)


async def end_connections(service: Service) -> None:
    """End what is left by force: cancel handlers, then close sockets under them, then give up on them.

    A handler that is still alive then is logged with its stack and counted as `stuck`.
    """
    await _insist(service, lambda connection: connection.cancel_handler(SHUTDOWN))
    await _insist(service, _cancel_and_abort)
    for connection in list(service.connections.values()):
        logger.error(
            "listener %s: the handler of connection %d from %s does not end; it is at:\n%s",
            service.name,
            connection.id,
            connection.peername,
            connection.handler_stack(),
        )
        service.stopped(connection, STUCK)
    # Refused with a farewell, they lingered and were never connections; or made by a handler that does not end.
    for left in [*service.closing, *service.upstreams]:
        left.abort_socket()


def _cancel_and_abort(connection: Carried) -> None:
    connection.abort_socket()
    connection.cancel_handler(SHUTDOWN)


async def _insist(service: Service, act: Callable[[Carried], None]) -> None:
    """Do this to every connection, again and again while the grace lasts; return early when none is left."""
    with anyio.move_on_after(CANCEL_GRACE_S):
        while service.connections:
            for position, connection in enumerate(list(service.connections.values())):
                act(connection)
                if position % CHUNK == CHUNK - 1:
                    await checkpoint()
            with anyio.move_on_after(CANCEL_EVERY_S):
                while service.connections:
                    await service.changed()
