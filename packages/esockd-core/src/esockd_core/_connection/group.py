"""Connections that get the same bytes: the members of a room, the subscribers of a topic."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

from anyio import BrokenResourceError, ClosedResourceError, WouldBlock

from esockd_core._connection.names import as_bytes
from esockd_core._errors import InvalidOption
from esockd_core._stats.reasons import SLOW_MEMBER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._connection.face import Connection

WhenSlow: TypeAlias = Literal["drop", "close"]


class ConnectionGroup:
    """Sends the same bytes to many connections, without waiting for the slow ones.

    A member is slow when the `write_limit_bytes` of its listener wait for it. Members that are closed or lost leave the
    group at the next broadcast, if they have not left before.

    Args:
        when_slow: What happens to a slow member: with "drop" it misses the message, with "close" its connection is
            reset and counted as `slow_member`.

    Attributes:
        dropped: How many messages slow members have missed so far.

    Raises:
        InvalidOption: If `when_slow` is something else.
    """

    def __init__(self, *, when_slow: WhenSlow = "drop") -> None:
        if when_slow not in {"drop", "close"}:
            raise InvalidOption('it takes "drop" or "close"', option="when_slow", value=when_slow)
        self._when_slow = when_slow
        self._members: dict[Connection, None] = {}
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, connection: object) -> bool:
        return connection in self._members

    def __iter__(self) -> Iterator[Connection]:
        """The members, in the order in which they joined; a copy."""
        return iter(list(self._members))

    def add(self, connection: Connection) -> None:
        """Make a connection a member. Does nothing if it is one."""
        self._members[connection] = None

    def discard(self, connection: Connection) -> None:
        """Remove a connection, if it is a member."""
        self._members.pop(connection, None)

    @contextmanager
    def joined(self, connection: Connection) -> Iterator[None]:
        """Make a connection a member for the duration of a block, in a coroutine handler."""
        self.add(connection)
        try:
            yield
        finally:
            self.discard(connection)

    def broadcast(self, data: bytes, *, exclude: Connection | None = None) -> int:
        """Hand over bytes to every member without waiting, so that all members get two broadcasts in the same order.

        Args:
            data: One whole message. A slow member gets all of it or nothing.
            exclude: A member to leave out, such as the sender.

        Returns:
            The number of members that took it.
        """
        data = as_bytes(data)
        reached = 0
        for member in list(self._members):
            if member is exclude:
                continue
            try:
                member.send_nowait(data)
            except WouldBlock:
                self._slow(member)
            except (BrokenResourceError, ClosedResourceError):
                self.discard(member)
            else:
                reached += 1
        return reached

    def _slow(self, member: Connection) -> None:
        self.dropped += 1
        if self._when_slow == "close":
            self.discard(member)
            member.abort(SLOW_MEMBER)
