"""Serves connections by the callbacks of one shared object, without a task or a waiter for each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from esockd_core._connection.driver import C, Driver, split_program_end
from esockd_core._connection.handler import CallbackHandler
from esockd_core._stats.reasons import NORMAL, RESET

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context


class CallbackDriver(Driver[C]):
    """Calls the program's callbacks; one driver serves all connections of a listener.

    An exception of a callback ends its own connection only, unless it is one that ends the program. The callbacks that
    the program left as they are do nothing, or close; they are not called for each connection.

    Args:
        callbacks: The program's handler.
        end_program: Raises a `KeyboardInterrupt` or `SystemExit` where the event loop lets it through.
        context: The context variables that each callback begins with; what it sets ends with it, or another client's
            callbacks would see it wherever one task or context serves many.
    """

    __slots__ = ("_callbacks", "_context", "_data_received", "_end_program", "_eof_received", "_lost", "_made")

    def __init__(
        self, callbacks: CallbackHandler[Any], end_program: Callable[[BaseException], None], context: Context
    ) -> None:
        self._callbacks = callbacks
        self._made = _unless_default(callbacks.connection_made, CallbackHandler.connection_made)
        self._data_received = callbacks.data_received
        self._eof_received = _unless_default(callbacks.eof_received, CallbackHandler.eof_received)
        self._lost = _unless_default(callbacks.connection_lost, CallbackHandler.connection_lost)
        self._context = context
        self._end_program = end_program

    def start(self, connection: C) -> None:
        if self._made is not None:
            self._call(connection, self._made)

    def data_received(self, connection: C, data: bytes) -> None:
        try:
            self._context.copy().run(self._data_received, connection, data)
        except BaseException as error:  # noqa: BLE001
            self._failed(connection, error)

    def eof_received(self, connection: C) -> None:
        if self._eof_received is None:
            connection.close_nowait()
        else:
            self._call(connection, self._eof_received)

    def writing_paused(self, connection: C) -> None:
        self._call(connection, self._callbacks.pause_writing)

    def writing_resumed(self, connection: C) -> None:
        self._call(connection, self._callbacks.resume_writing)

    def tls_started(self, connection: C) -> None:
        self._call(connection, self._callbacks.tls_started)

    def drain_requested(self, connection: C) -> None:
        self._call(connection, self._callbacks.drain_requested)

    def cancel(self, connection: C, reason: str) -> None:
        connection.cut_short(reason)

    def lost(self, connection: C, broke: bool) -> None:
        if broke:
            connection.note_reason(RESET)
        if self._lost is None:
            connection.ended(NORMAL)
            return
        try:
            self._context.copy().run(self._lost, connection, connection.error)
        except BaseException as raised:  # noqa: BLE001
            self._failed(connection, raised)
        finally:  # what ends the program waits until the connections have ended
            connection.ended(NORMAL)

    def _call(self, connection: C, callback: Callable[[Any], None]) -> None:
        try:
            self._context.copy().run(callback, connection)
        except BaseException as error:  # noqa: BLE001
            self._failed(connection, error)

    def _failed(self, connection: C, error: BaseException) -> None:
        errors, program_end = split_program_end(error)
        connection.close_nowait(NORMAL if errors is None else connection.reason_for(errors))
        if program_end is not None:
            self._end_program(program_end)


F = TypeVar("F", bound="Callable[..., None]")


def _unless_default(callback: F, default: Callable[..., None]) -> F | None:
    """A callback, or None if the program did not override it."""
    return None if getattr(callback, "__func__", None) is default else callback
