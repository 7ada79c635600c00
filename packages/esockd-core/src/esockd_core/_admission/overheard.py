"""The connections in their entrance as admission counts them; a shadow leaves out those that it has refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from esockd_core._connection.entrance import Waiting

if TYPE_CHECKING:
    from collections.abc import Container

    from esockd_core._connection.entrance import Waits


class Entering(Protocol):
    """The connections in their entrance; see `Waiting`."""

    @property
    def headers(self) -> Container[object]:
        """Those that wait for their PROXY header."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...


class OverheardWaiting(Waiting):
    """The `Waiting` of a site while a shadow judges: the same connections, and word of those that wait no more.

    Args:
        waiting: The one of the site, which shares everything with it.

    Attributes:
        left_out: Connections among them that the shadow has refused.
    """

    __slots__ = ("left_out",)

    def __init__(self, waiting: Waiting) -> None:
        self._durations, self._spared = waiting._durations, waiting._spared  # noqa: SLF001 (of the same class)
        self.headers, self.handshakes = waiting.headers, waiting.handshakes
        self.left_out: set[Waits] = set()

    def handshake_done(self, connection: Waits, now: float) -> None:
        """A handshake succeeded."""
        self.left_out.discard(connection)
        super().handshake_done(connection, now)

    def forget(self, connection: Waits) -> None:
        """Stop waiting for a connection."""
        self.left_out.discard(connection)
        super().forget(connection)


class Rest:
    """The connections of a site in their entrance, without those that a shadow has refused.

    Args:
        waiting: All of them.
        left_out: Those that are left out.
    """

    def __init__(self, waiting: Waiting, left_out: set[Waits]) -> None:
        self._waiting = waiting
        self._left_out = left_out

    @property
    def headers(self) -> Container[object]:
        """Those that wait for their PROXY header."""
        return self._waiting.headers

    def __len__(self) -> int:
        return len(self._waiting) - len(self._left_out)
