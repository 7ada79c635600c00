"""The parts of a handler that wait for a drain: an event, and scopes that are cancelled by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from types import TracebackType


class Drained(Protocol):
    """A connection, as scopes see it."""

    def enter_until_draining(self, scope: UntilDraining) -> None:
        """A handler entered a scope."""

    def leave_until_draining(self, scope: UntilDraining) -> None:
        """A handler left a scope."""


class UntilDraining:
    """Cancels its body when the drain of a connection begins and the handler is not handling a message.

    Attributes:
        scope: The scope that is cancelled.
        taken: How much the handler had taken when it entered.
    """

    __slots__ = ("_connection", "scope", "taken")

    def __init__(self, connection: Drained) -> None:
        self._connection = connection
        self.scope = anyio.CancelScope()
        self.taken = 0

    def __enter__(self) -> anyio.CancelScope:
        self.scope.__enter__()
        self._connection.enter_until_draining(self)
        return self.scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._connection.leave_until_draining(self)
        return self.scope.__exit__(kind, error, traceback)


class DrainingWatch:
    """The event and the scopes of one connection. Few connections have any."""

    __slots__ = ("event", "scopes")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.scopes: list[UntilDraining] = []

    def cancel_scopes(self) -> bool:
        """Cancel the remaining scopes, and return whether there were any."""
        scopes, self.scopes = self.scopes, []
        for each in scopes:
            each.scope.cancel()
        return bool(scopes)
