"""The connections that the sweeper looks at a few times a second; a timer for each would cost more than itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esockd_core._connection.served import ServedConnection


class Watch:
    """The connections of one listener whose end depends on what their peers do.

    Attributes:
        sending: Connections with unacknowledged bytes: how many the peer had acknowledged when it last made progress,
            and when that was.
        closing: Connections that are closing: their undelivered bytes at the last look, -1 before the first, and since
            when.
        cut: Those of `closing` that end in a reset once everything is delivered.
        farewells: Refused connections that are still being sent a farewell.
        upstreams: Connections that forwarders have made.
        relays: The upstream of each client that is being relayed.
        killed: Connections that were killed, until their handlers have ended.
        receiving: The signs of life of each connection with a `receive_timeout` at the last look that saw new ones, and
            when that was on a clock that stands still while the program stalls.
        stalled_s: How far that clock is behind the event loop's.
    """

    __slots__ = (
        "closing",
        "cut",
        "farewells",
        "killed",
        "receive_timeouts",
        "receiving",
        "relays",
        "sending",
        "shortest_receive_timeout",
        "stalled_s",
        "upstreams",
    )

    def __init__(self) -> None:
        self.sending: dict[ServedConnection, tuple[int, float]] = {}
        self.closing: dict[ServedConnection, tuple[int, float]] = {}
        self.cut: set[ServedConnection] = set()
        self.farewells: set[ServedConnection] = set()
        self.upstreams: set[ServedConnection] = set()
        self.relays: dict[ServedConnection, ServedConnection] = {}
        self.receiving: dict[ServedConnection, tuple[int, float]] = {}
        self.receive_timeouts: dict[ServedConnection, float | None] = {}
        self.shortest_receive_timeout = math.inf
        self.stalled_s = 0.0
        self.killed: set[ServedConnection] = set()

    def set_receive_timeout(self, connection: ServedConnection, timeout: float | None, now: float) -> None:
        """A handler set one for its connection, whose time starts anew."""
        self.receive_timeouts[connection] = timeout
        self.receiving[connection] = (connection.signs_of_life(), now - self.stalled_s)
        if timeout is not None:
            self.shortest_receive_timeout = min(self.shortest_receive_timeout, timeout)

    def socket_lost(self, connection: ServedConnection) -> None:
        """Stop watching a connection, because its socket is closed."""
        if self.sending:
            self.sending.pop(connection, None)
        if self.closing:
            self.closing.pop(connection, None)
            self.cut.discard(connection)
        if self.farewells:
            self.farewells.discard(connection)
        if self.upstreams:
            self.upstreams.discard(connection)
        if self.receiving or self.receive_timeouts:
            self.receiving.pop(connection, None)
            self.receive_timeouts.pop(connection, None)
