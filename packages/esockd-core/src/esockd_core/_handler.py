"""The two shapes of a handler: a coroutine function, or one shared object of callbacks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from esockd_core._connection import StreamConnection

CoroutineHandler: TypeAlias = Callable[[StreamConnection], Coroutine[Any, Any, object]]


class CallbackHandler:
    """Serves every connection of a listener by synchronous callbacks, without a task for each connection.

    Derive from it and override what matters. Callbacks run in the event loop: they must not block. One that raises
    ends its own connection as `handler_error` and nothing else. For one connection they come in the order
    `connection_made`, any number of the others, `connection_lost`.
    """

    def connection_made(self, connection: StreamConnection) -> None:
        """The connection was admitted and its upgrades are done."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        """The peer sent bytes, at least one."""

    def eof_received(self, connection: StreamConnection) -> None:
        """The peer finished sending. The default closes this end once everything is sent."""
        connection.close_nowait()

    def pause_writing(self, connection: StreamConnection) -> None:
        """More than `write_buffer_bytes` wait for the peer. The default stops reading from it until they are gone."""
        connection.pause_reading()

    def resume_writing(self, connection: StreamConnection) -> None:
        """The peer took what waited for it. The default reads on."""
        connection.resume_reading()

    def tls_started(self, connection: StreamConnection) -> None:
        """The handshake that `connection.start_tls_nowait` began is done; `connection.tls` tells about it.

        Where it fails, `connection_lost` comes instead.
        """

    def drain_requested(self, connection: StreamConnection) -> None:
        """The listener asks the connection to come to its end. The default closes it once everything is sent."""
        connection.close_nowait("shutdown")

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        """The connection is over; `error` is None after an orderly end. Called exactly once."""


Handler: TypeAlias = CoroutineHandler | CallbackHandler
