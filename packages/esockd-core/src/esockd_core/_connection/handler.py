"""The two shapes of a handler: a coroutine function, or one shared object of callbacks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, unwrap
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from esockd_core._connection.datagram_face import DatagramConnection
from esockd_core._connection.face import StreamConnection
from esockd_core._errors import InvalidOption

TAKES: Final = "it takes a coroutine function, or an instance of CallbackHandler"

CoroutineHandler: TypeAlias = (
    Callable[[StreamConnection], Coroutine[Any, Any, object]]
    | Callable[[DatagramConnection], Coroutine[Any, Any, object]]
)

if TYPE_CHECKING:  # a handler that does not say of what is one of streams
    from typing_extensions import TypeVar as TypeVarWithDefault

    C = TypeVarWithDefault("C", bound=Any, default=StreamConnection)
else:
    C = TypeVar("C")


class CallbackHandler(Generic[C]):
    """Serves every connection of a listener by synchronous callbacks, without a task for each connection.

    One of a datagram listener derives from `CallbackHandler[DatagramConnection]`. Nothing but `connection_made`,
    `data_received`, `drain_requested` and `connection_lost` is called there; `data_received` is given one datagram.

    Derive from it and override the callbacks that matter. They run in the event loop, so they must not block. If one
    raises, its own connection ends as `handler_error`, and no other. For one connection, `connection_made` is called
    first and `connection_lost` last.
    """

    def connection_made(self, connection: C) -> None:
        """The connection was admitted and has passed its entrance."""

    def data_received(self, connection: C, data: bytes) -> None:
        """The peer sent bytes, at least one; or one datagram, which may be empty."""

    def eof_received(self, connection: C) -> None:
        """The peer finished sending. The default closes this end once everything is sent."""
        connection.close_nowait()

    def pause_writing(self, connection: C) -> None:
        """More than `write_buffer_bytes` wait for the peer. The default stops reading until it took them."""
        connection.pause_reading()

    def resume_writing(self, connection: C) -> None:
        """The peer has taken the bytes that waited for it. The default continues to read."""
        connection.resume_reading()

    def tls_started(self, connection: C) -> None:
        """The handshake that `connection.start_tls_nowait` began is done; `connection.tls` describes it.

        If it fails, `connection_lost` is called instead.
        """

    def drain_requested(self, connection: C) -> None:
        """The listener asks the connection to end. The default closes it once everything is sent."""
        connection.close_nowait("shutdown")

    def connection_lost(self, connection: C, error: Exception | None) -> None:
        """The connection is over; `error` is None after an orderly end. Called exactly once."""


Handler: TypeAlias = CoroutineHandler | CallbackHandler[Any]

CALLBACKS: Final = tuple(name for name in vars(CallbackHandler) if not name.startswith("_"))


def checked_handler(handler: Handler) -> Handler:
    """A handler that can serve connections.

    A lambda is accepted, because it may return the coroutine of another function.

    Raises:
        InvalidOption: If it is neither a coroutine function nor an instance of `CallbackHandler`, or if one of its
            callbacks is a coroutine function.
    """
    given: object = handler
    if isinstance(given, CallbackHandler):
        for name in CALLBACKS:
            if iscoroutinefunction(getattr(given, name)):
                raise _refused(
                    given,
                    f"its {name} is a coroutine function, which nobody would await",
                    f'Write "def {name}", or give a coroutine function in place of the object.',
                )
        return handler
    if isinstance(given, type):
        hint = f"Give an instance: {given.__name__}()." if issubclass(given, CallbackHandler) else None
        raise _refused(given, TAKES, hint)
    if iscoroutine(given):
        given.close()
        raise _refused(given, TAKES, "Give the function itself, without calling it.")
    if not callable(given):
        raise _refused(given, TAKES)
    function = _function_of(given)
    name = getattr(function, "__name__", "handler")
    if isasyncgenfunction(function):
        raise _refused(given, "it is an async generator, which nobody would iterate over", 'Send, and do not "yield".')
    if isinstance(function, FunctionType) and not iscoroutinefunction(function) and name != "<lambda>":
        raise _refused(
            given, "it is a plain function, and nothing could be awaited in it", f'Write "async def {name}".'
        )
    return handler


def _function_of(handler: Callable[..., object]) -> object:
    """The function that runs when a handler is called, without `functools.partial`, decorators and `__call__`."""
    function: Any = handler
    while isinstance(function, partial):
        function = function.func
    if not isinstance(function, FunctionType | MethodType) and not iscoroutinefunction(function):
        function = type(function).__call__
    function = unwrap(function)
    return function.__func__ if isinstance(function, MethodType) else function


def _refused(handler: object, reason: str, hint: str | None = None) -> InvalidOption:
    return InvalidOption(reason, option="handler", value=handler, hint=hint)
