"""What a program logs inside a handler, with the fields of the connection that it is about."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, cast, overload

from esockd_core._connection.handler import CALLBACKS, CallbackHandler, checked_handler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._connection.face import StreamConnection
    from esockd_core._connection.handler import CoroutineHandler, Handler

CURRENT: Final[ContextVar[StreamConnection | None]] = ContextVar("esockd_connection", default=None)


class ConnectionLogFilter(logging.Filter):
    """Adds `listener`, `connection_id` and `peer` to the records that are made inside a handler; keeps every record.

    Add it to a handler of `logging`, not to a logger, whose filters do not see the records of loggers below it. It
    knows of the connections whose handlers are given as `with_log_fields(handler)`. What does not apply is missing, as
    with the records of this package: a `logging.Formatter` takes `defaults` for that.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is not there yet."""
        connection = CURRENT.get()
        if connection is not None:
            fields: dict[str, Any] = {
                "listener": cast("Any", connection).site.name,
                "connection_id": connection.id,
                "peer": connection.peername,
            }
            vars(record).update({name: value for name, value in fields.items() if name not in vars(record)})
        return True


@overload
def with_log_fields(handler: CallbackHandler) -> CallbackHandler: ...
@overload
def with_log_fields(handler: CoroutineHandler) -> CoroutineHandler: ...
def with_log_fields(handler: Handler) -> Handler:
    """Make a handler of a handler, inside which a `ConnectionLogFilter` knows the connection.

    It holds for the tasks that a coroutine handler starts, too. It costs each connection a context variable and a
    coroutine, about half a kilobyte, and each callback about a microsecond.

    Raises:
        InvalidOption: If it is not a handler.
    """
    checked_handler(handler)
    if isinstance(handler, CallbackHandler):
        return _WithLogFields(handler)

    function: Any = handler

    @wraps(function, updated=())
    async def handle(connection: Any) -> object:
        with _within(connection):
            return await function(connection)

    return handle


@contextmanager
def _within(connection: StreamConnection) -> Iterator[None]:
    token = CURRENT.set(connection)
    try:
        yield
    finally:
        CURRENT.reset(token)


class _WithLogFields(CallbackHandler):
    """Calls the callbacks of another within the context of their connection."""

    def __init__(self, callbacks: CallbackHandler) -> None:
        for name in CALLBACKS:
            setattr(self, name, _call_within(getattr(callbacks, name)))


def _call_within(callback: Any) -> Any:
    def call(connection: StreamConnection, *arguments: object) -> None:
        with _within(connection):
            callback(connection, *arguments)

    return call
