"""A connection for the test of a handler, as the test sees it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from esockd_core._connection.face import StreamConnection

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from esockd_core._connection.handler import Handler
    from esockd_core.testing._peer import MemoryPeer


class MemoryConnection(StreamConnection):
    """A connection without a listener and without a socket; `memory_connection` makes one.

    To its handler it is like a connection of a listener, but without delay and always the same: no byte is on its way
    for a while, and the buffers that a kernel would have are of the given sizes.

    Attributes:
        peer: The client's end.
        failure: The handler's exception, if it counts as `handler_error`; otherwise None.
    """

    __slots__ = ()

    peer: MemoryPeer
    failure: BaseException | None

    @property
    @abstractmethod
    def reason(self) -> str | None:
        """The shutdown reason that a listener would count; None while the connection has not ended."""

    @abstractmethod
    async def serve(self, handler: Handler) -> str:
        """Serve this connection by a handler, as a listener does, until both have ended.

        The handler first sees what the peer did before. To act as the peer meanwhile, use another task or `served_by`.

        Returns:
            The shutdown reason that a listener would count.

        Raises:
            InvalidOption: If the handler is not one.
            RuntimeError: If the connection was served already.
        """

    @abstractmethod
    def served_by(self, handler: Handler, *, raise_failure: bool = True) -> AbstractAsyncContextManager[MemoryPeer]:
        """Serve this connection for the duration of a block, which acts as the client with the peer that it gets.

        At the end the peer is closed. Then the handler is asked to end, and cancelled after `shutdown_timeout`, as by a
        listener that closes. After the block, `reason` tells how the connection ended.

        An error of the block arrives as itself, and names `failure` as its cause.

        Args:
            handler: A handler of either style.
            raise_failure: Whether `failure` is raised at the end of the block.

        Raises:
            Exception: If the handler raised it and it counts as `handler_error`.
            InvalidOption: If the handler is not one.
            RuntimeError: If the connection was served already.
        """

    @abstractmethod
    def request_draining(self) -> None:
        """Ask the handler to end the connection, as a closing listener does."""
