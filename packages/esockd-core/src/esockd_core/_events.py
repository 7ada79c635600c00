"""What a listener tells an `on_event` hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from esockd_core._connection import Connection


class ConnectionEvent(NamedTuple):
    """One end of a connection's life; each admitted connection has exactly one of each kind.

    A tuple, because making one costs half of making a frozen object, and there are two for each connection.

    Attributes:
        kind: "connection_started" at admission, "connection_stopped" once nothing of it is left.
        listener: The listener's name.
        connection: The connection; after its stop only its attributes are of use.
        reason: The shutdown reason it counted under; None at its start.
    """

    kind: Literal["connection_started", "connection_stopped"]
    listener: str
    connection: Connection
    reason: str | None = None
