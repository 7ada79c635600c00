"""The events that a listener passes to an `on_event` hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from esockd_core._connection.face import Connection


class ConnectionEvent(NamedTuple):
    """The start or the stop of a connection; each connection that passes its entrance has exactly one of each.

    A tuple, because making one costs half of making a frozen object, and there are two for each connection.

    Attributes:
        kind: "connection_started" once it has passed its entrance, "connection_stopped" once nothing is left of it.
        listener: The listener's name.
        connection: The connection; after its stop only its attributes are useful.
        reason: The shutdown reason that it counted under; None at its start.
    """

    kind: Literal["connection_started", "connection_stopped"]
    listener: str
    connection: Connection
    reason: str | None = None
