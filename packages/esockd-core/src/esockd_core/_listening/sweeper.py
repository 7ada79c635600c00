"""Looks at the connections of a listener now and then: a timer for each would cost more than the connection.

Timeouts measure progress: bytes that came in, and bytes that the peer acknowledged, wherever they wait until then. A
timeout never fires early. It may fire up to 12.5 % late, plus the time until the next look.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint

from esockd_core._listening.ages import Ages
from esockd_core._stats.reasons import IDLE_TIMEOUT, KILLED, RECEIVE_TIMEOUT, SEND_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esockd_core._connection.served import ServedConnection
    from esockd_core._connection.site import Site

CHUNK: Final = 256  # connections looked at before the event loop gets its turn
LOOKS: Final = 8  # within a timeout


class Sweeper:
    """Ends the connections of one listener that have timed out."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._idle_timeout = self._send_timeout = math.inf
        self._ages = Ages(site)
        self._now = 0.0
        self._stalled_s = 0.0
        self._looked_at = {"all": -math.inf, "receiving": -math.inf, "sending": -math.inf, "closing": -math.inf}

    async def sweep(self, now: float, stalled_s: float = 0.0) -> None:
        """Look at everything that is due; called a few times a second.

        Args:
            now: By the event loop's clock.
            stalled_s: How late that is, because the program did something else: nobody's peer is idle for that.
        """
        site, watch = self._site, self._site.watch
        self._now = now
        self._stalled_s += stalled_s
        watch.stalled_s += stalled_s
        self._idle_timeout = _or_never(site.idle_timeout)
        self._send_timeout = _or_never(site.options.send_timeout)
        site.log.tell_left_out()
        for port in site.ports:
            port.look_at_kernel()
        site.waiting.sweep(now, site.options)
        if site.dtls is not None:
            site.dtls.sweep(now)
        await self._ages.look(now)
        if watch.killed:
            self._insist_on_kills()
        if self._is_due("all", min(self._send_timeout, self._idle_timeout)):
            await _for_each([*watch.upstreams, *site.registry], self._look_at)
            self._stalled_s = 0.0
        if self._is_due("receiving", self._shortest_receive_timeout()):
            watch.shortest_receive_timeout = min(map(_or_never, watch.receive_timeouts.values()), default=math.inf)
            by_option = site.registry.connections.values() if site.options.receive_timeout is not None else ()
            await _for_each([*by_option, *watch.receive_timeouts], self._look_at_receiving)
        if watch.sending and self._is_due("sending", self._send_timeout):
            await _for_each(watch.sending, self._look_at_sending)
        if watch.closing and self._is_due("closing", min(self._send_timeout, site.options.linger_timeout)):
            await _for_each(watch.closing, self._look_at_closing)

    def next_look(self) -> float:
        """Seconds until something that is watched now may be due; infinity if nothing is watched."""
        options, watch = self._site.options, self._site.watch
        timeouts = [_or_never(options.send_timeout), _or_never(self._site.idle_timeout)]
        timeouts += [self._shortest_receive_timeout(), self._ages.next_look()]
        if watch.closing:
            timeouts.append(options.linger_timeout)
        return 0.0 if watch.killed else min(timeouts) / LOOKS

    def _is_due(self, what: str, timeout: float) -> bool:
        if timeout == math.inf or self._now - self._looked_at[what] < timeout / LOOKS:
            return False
        self._looked_at[what] = self._now
        return True

    def _insist_on_kills(self) -> None:
        # A handler that swallows one cancellation does not get to stay.
        killed = self._site.watch.killed
        for connection in list(killed):
            if connection in self._site.registry:
                connection.cancel_handler(KILLED)
            else:
                killed.discard(connection)

    def _look_at(self, connection: ServedConnection) -> None:
        """Notice progress, abort a connection that was idle for too long, and watch one that waits for its peer."""
        now, watch = self._now, self._site.watch
        handed = connection.wire_bytes_out()
        if connection.bytes_in + handed != connection.moved_bytes:
            taken = connection.taken_bytes() if handed else 0  # uvloop would keep an object to ask its socket
            if connection.bytes_in + taken > connection.moved_bytes:
                connection.moved_bytes, connection.moved_at = connection.bytes_in + taken, now
            if taken < handed and connection.state == "open":
                watch.sending.setdefault(connection, (taken, now))
        connection.moved_at = min(now, connection.moved_at + self._stalled_s)
        if connection in watch.relays:  # its bytes may be on their way to its upstream
            connection.moved_at = max(connection.moved_at, watch.relays[connection].moved_at)
        # The end of one that is not open is bounded already, and upstreams end with their clients.
        if (
            now - connection.moved_at < self._idle_timeout
            or connection.state != "open"
            or connection in watch.upstreams
        ):
            return
        if connection.has_unread_input():
            connection.moved_at = now  # it is not the peer that is idle
        else:
            connection.abort(IDLE_TIMEOUT)

    def _shortest_receive_timeout(self) -> float:
        return min(_or_never(self._site.options.receive_timeout), self._site.watch.shortest_receive_timeout)

    def _look_at_receiving(self, connection: ServedConnection) -> None:
        """Abort a connection whose peer sends nothing, though it could."""
        watch = self._site.watch
        awake = self._now - watch.stalled_s  # who waits for the program's answer sends nothing while it stalls
        timeout = _or_never(watch.receive_timeouts.get(connection, self._site.options.receive_timeout))
        seen = watch.receiving.get(connection)
        if connection.state != "open" or connection.has_finished or timeout == math.inf:
            watch.receiving.pop(connection, None)
        elif seen is None or connection.signs_of_life() != seen[0]:
            watch.receiving[connection] = (connection.signs_of_life(), awake)
        elif awake - seen[1] < timeout:
            return
        elif connection.has_unread_input():
            watch.receiving[connection] = (connection.signs_of_life(), awake)
        else:
            connection.abort(RECEIVE_TIMEOUT)

    def _look_at_sending(self, connection: ServedConnection) -> None:
        """Abort a connection if the peer takes none of the bytes that wait for it."""
        sending = self._site.watch.sending
        seen = sending.get(connection)
        if seen is None:
            return  # what was done to another one ended this
        taken = connection.taken_bytes()
        if taken >= connection.wire_bytes_out() or connection.state != "open":
            del sending[connection]
        elif taken > seen[0]:
            sending[connection] = (taken, self._now)
        elif self._now - seen[1] >= self._send_timeout:
            connection.abort(SEND_TIMEOUT)

    def _look_at_closing(self, connection: ServedConnection) -> None:
        """End a closing connection, once everything is delivered or when that takes too long."""
        watch = self._site.watch
        seen = watch.closing.get(connection)
        if seen is None:
            return
        left = connection.undelivered_bytes()
        if not left and connection in watch.cut:
            connection.abort()
        elif not left and connection.has_finished:
            connection.close_socket()
        elif connection not in watch.cut and (left < seen[0] or seen[0] < 0):  # a cut is not for ever
            watch.closing[connection] = (left, self._now)
        elif self._now - seen[1] >= (self._send_timeout if left else self._site.options.linger_timeout):
            if left:
                connection.abort(SEND_TIMEOUT)
            else:
                connection.close_socket()


def _or_never(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout


async def _for_each(connections: Iterable[ServedConnection], look_at: Callable[[ServedConnection], None]) -> None:
    for position, connection in enumerate(list(connections), start=1):
        look_at(connection)
        if position % CHUNK == 0:
            await checkpoint()
    await checkpoint()
