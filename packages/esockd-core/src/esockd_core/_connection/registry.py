"""The connections of a listener, from admission to the end of both socket and handler."""

from __future__ import annotations

import logging
import time
from itertools import count
from typing import TYPE_CHECKING

import anyio

from esockd_core._connection.events import ConnectionEvent
from esockd_core._stats.reasons import HANDLER_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_core._connection.served import ServedConnection
    from esockd_core._stats.counters import Counters
    from esockd_core._stats.log import ListenerLog

_ids = count(1)


def begin_ids_at(first: int) -> None:
    """Let the ids of this process begin at a number, so that those of several processes differ. Call it once."""
    global _ids  # noqa: PLW0603 (of the process, as the numbers are)
    _ids = count(first)


class Registry:
    """The connections of one listener.

    Nothing outside sees a connection before it has passed its entrance (PROXY header, judgement of its source, TLS).
    Until then it is among `entering`: it holds a place and can be ended, but is in no list and has no event.

    Args:
        listener: The listener's name.
        counters: Counters of the listener, for the ends of connections.
        log: The listener's log.
        on_event: Called at the start and at the end of each connection.

    Attributes:
        entering: Admitted connections in their entrance, by id.
        connections: Those that have passed it, by id.
        release: Gives back the place of a connection that ended; set by the listener.
    """

    __slots__ = ("_changed", "_counters", "_listener", "_log", "_on_event", "connections", "entering", "release")

    release: Callable[[ServedConnection], None]

    def __init__(
        self, listener: str, counters: Counters, log: ListenerLog, on_event: Callable[[ConnectionEvent], None] | None
    ) -> None:
        self._listener = listener
        self._counters = counters
        self._log = log
        self._on_event = on_event
        self._changed: anyio.Event | None = None
        self.entering: dict[int, ServedConnection] = {}
        self.connections: dict[int, ServedConnection] = {}

    def __len__(self) -> int:
        return len(self.connections) + len(self.entering)

    def __contains__(self, connection: ServedConnection) -> bool:
        """Whether the connection was admitted and has not ended."""
        return connection.id in self.connections or connection.id in self.entering

    def __iter__(self) -> Iterator[ServedConnection]:
        """Every admitted connection; a copy, so that they may end meanwhile."""
        return iter(self.every())

    def every(self) -> list[ServedConnection]:
        """The same as a list."""
        return [*self.connections.values(), *self.entering.values()]

    def find(self, connection_id: int) -> ServedConnection | None:
        """The connection with this id, entering or not; None if there is none."""
        return self.connections.get(connection_id) or self.entering.get(connection_id)

    def enter(self, connection: ServedConnection) -> None:
        """Register an admitted connection that has an entrance to pass."""
        connection.id = next(_ids)
        connection.opened_at = time.time()
        self.entering[connection.id] = connection

    def add(self, connection: ServedConnection) -> None:
        """Register an admitted connection that has no entrance to pass."""
        connection.id = next(_ids)
        connection.opened_at = time.time()
        self.connections[connection.id] = connection
        if self._on_event is not None:
            self._tell(ConnectionEvent("connection_started", self._listener, connection))

    def passed(self, connection: ServedConnection) -> None:
        """Make a connection public that has passed its entrance."""
        del self.entering[connection.id]
        self.connections[connection.id] = connection
        if self._on_event is not None:
            self._tell(ConnectionEvent("connection_started", self._listener, connection))

    def ended(self, connection: ServedConnection, reason: str) -> None:
        """Count the end of a connection and forget it: its socket and its handler are both gone."""
        was_public = self.connections.pop(connection.id, None) is not None
        if not was_public and self.entering.pop(connection.id, None) is None:
            return  # it was given up as stuck, and ended after all
        self.release(connection)
        counters = self._counters
        connection.add_totals(counters)
        counters.count_end(reason)
        counters.lifetimes.note_later(time.time() - connection.opened_at)
        if self._changed is not None:
            self.announce_change()
        if self._on_event is not None and was_public:
            self._tell(ConnectionEvent("connection_stopped", self._listener, connection, reason))

    async def changed(self) -> None:
        """Return when the next connection has ended or another change is announced."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def announce_change(self) -> None:
        """Wake all tasks in `changed`."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def handler_failed(self, connection: ServedConnection, error: BaseException) -> str:
        """Log a handler's exception, unless there are too many, and return the reason to count."""
        self._log.say(
            logging.ERROR,
            "handler of connection %d from %s failed: %r",
            connection.id,
            connection.peername,
            error,
            connection=connection,
            reason=HANDLER_ERROR,
            error=error,
        )
        return HANDLER_ERROR

    def peer_failed(self, connection: ServedConnection, error: BaseException, reason: str) -> None:
        """Log that a peer broke the rules of a protocol, which its handler need not catch."""
        self._log.say(
            logging.INFO,
            "connection %d from %s ended as %s: %s",
            connection.id,
            connection.peername,
            reason,
            error,
            connection=connection,
            reason=reason,
        )

    def _tell(self, event: ConnectionEvent) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001 - of the program
                self._log.say(logging.ERROR, "the on_event hook failed: %r", error, error=error)
