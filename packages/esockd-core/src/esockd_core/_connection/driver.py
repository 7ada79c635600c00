"""The driver of a connection, which is told of everything that happens to it.

A connection has one driver at a time. The first judges the peer. If there is an entrance (PROXY header, TLS), its
driver is the next. The last runs the program's handler, a coroutine or callbacks, or relays. Each driver decides which
one follows, and a connection never asks which it has.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Generic, TypeVar

from esockd_core._connection.served import ServedConnection
from esockd_core._stats.reasons import HANDSHAKE_TIMEOUT, NORMAL

C = TypeVar("C", bound=ServedConnection)


class Driver(Generic[C]):
    """Does the little that a connection needs before a handler sees it; the base of all drivers."""

    __slots__ = ()

    receives: ClassVar[bool] = False
    """Whether the handler gets its bytes by `receive`."""

    def start(self, connection: C) -> None:
        """It is this driver's turn."""

    def data_received(self, connection: C, data: bytes) -> None:
        """The peer sent bytes, at least one."""

    def eof_received(self, connection: C) -> None:
        """The peer finished sending."""

    def reading_resumed(self, connection: C) -> None:
        """Reading was paused and has resumed."""

    def writing_paused(self, connection: C) -> None:
        """More than `write_buffer_bytes` wait for the peer."""

    def writing_resumed(self, connection: C) -> None:
        """The peer took the bytes that waited for it."""

    def tls_started(self, connection: C) -> None:
        """A handshake in the middle of the connection is done."""

    def drain_requested(self, connection: C) -> None:
        """The listener asks the connection to end."""

    def cancel(self, connection: C, reason: str) -> None:
        """Cancel the handler; may be called again and again until it has ended."""
        connection.abort(reason)

    def timed_out(self, connection: C) -> None:
        """The time for the PROXY header or the handshake is over."""
        connection.abort(HANDSHAKE_TIMEOUT)

    def lost(self, connection: C, broke: bool) -> None:  # noqa: ARG002
        """The socket is closed.

        Args:
            connection: The connection that has lost it.
            broke: Whether it failed before this side closed it.
        """
        connection.ended(NORMAL)

    def stack(self, connection: C) -> str:  # noqa: ARG002
        """Where the handler is, as text for the log."""
        return ""


AnyDriver = Driver[Any]
NOBODY: Final = Driver[Any]()
"""The driver of a connection that nobody has to be told of."""


def split_program_end(
    error: BaseException, *also: type[BaseException]
) -> tuple[BaseException | None, BaseException | None]:
    """Split an error into the part that belongs to the handler and the part that ends the program.

    Args:
        error: The error that the handler raised, perhaps a group.
        also: Classes that end the program, besides `KeyboardInterrupt` and `SystemExit`.
    """
    kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit, *also)
    if isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[BaseException] = error
        ends, errors = group.split(kinds)
        return errors, None if ends is None else program_end_in(ends) or ends
    return (None, error) if isinstance(error, kinds) else (error, None)


def program_end_in(error: BaseException) -> BaseException | None:
    """The first `KeyboardInterrupt` or `SystemExit` of an error, which event loops raise alone, never in a group."""
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, KeyboardInterrupt | SystemExit) else None
    return next((found for each in error.exceptions if (found := program_end_in(each)) is not None), None)
