"""A connection for a test of a handler, as the test sees it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from esockd_core._connection import StreamConnection

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from esockd_core._handler import Handler
    from esockd_core.testing._peer import MemoryPeer


class MemoryConnection(StreamConnection):
    """A connection without a listener and without a socket; `memory_connection` makes one.

    To its handler it is what a listener's connection is, at once and always alike: nothing is on its way for a while,
    and what a kernel would buffer has the sizes given.

    Attributes:
        peer: The client's end.
        failure: What the handler raised, where that counts as `handler_error`; otherwise None.
    """

    __slots__ = ()

    peer: MemoryPeer
    failure: BaseException | None

    @property
    @abstractmethod
    def reason(self) -> str | None:
        """The shutdown reason that a listener counts this end under; None while it is not over."""

    @abstractmethod
    async def serve(self, handler: Handler) -> str:
        """Serve this connection by a handler as a listener does, until nothing is left of either.

        What the peer did before is noticed first; what it does meanwhile takes a task beside this one, or `served_by`.

        Returns:
            The shutdown reason that a listener counts such an end under.

        Raises:
            InvalidOption: The handler is none.
            RuntimeError: The connection was served already.
        """

    @abstractmethod
    def served_by(self, handler: Handler) -> AbstractAsyncContextManager[MemoryPeer]:
        """Serve this connection for the duration of a block, which plays the client with the peer that is given.

        At the end the peer is closed, then the handler is told to come to its end, and is cancelled after
        `shutdown_timeout`, as by a listener that closes. After the block `reason` says how it ended.

        Raises:
            InvalidOption: The handler is none.
            RuntimeError: The connection was served already.
        """

    @abstractmethod
    def request_draining(self) -> None:
        """Tell the handler that the listener wants the connection to end, as one does that closes."""
