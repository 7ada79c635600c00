"""Handlers by the place to import them from, as plain text."""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from typing import cast

from esockd_core._connection.handler import CallbackHandler, Handler
from esockd_core._errors import InvalidOption


def import_handler(path: str) -> Handler:
    """Import the handler at "package.module:name". A class of callbacks is instantiated.

    Raises:
        InvalidOption: If nothing is found there, or if it is not a handler.
    """
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise _bad(path, 'it takes a place such as "package.module:name"')
    try:
        found: object = reduce(getattr, name.split("."), import_module(module))
    except Exception as error:  # a module raises what it likes while it is imported
        raise _bad(path, f"it cannot be imported: {type(error).__name__}: {error}") from error
    if isinstance(found, type) and issubclass(found, CallbackHandler):
        found = found()
    if not isinstance(found, CallbackHandler) and not callable(found):
        raise _bad(path, f"{found!r} is neither a coroutine function nor a CallbackHandler")
    return cast("Handler", found)


def _bad(path: str, reason: str) -> InvalidOption:
    return InvalidOption(reason, option="handler", value=path)
