"""Live changes that the program itself makes: they are lines in the log, as those of control clients are.

A program may well change something for each client, such as a rule that keeps it out. So these lines are bounded.
"""

from __future__ import annotations

import inspect
import logging
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from esockd_core.control.audit import describe_change, look_before

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from esockd_core._stats.log import ListenerLog
    from esockd_core.control.interface import ListenerControl

logger = logging.getLogger("esockd_core")

IS_TOLD: Final[ContextVar[bool]] = ContextVar("esockd_core.is_told", default=False)

M = TypeVar("M", bound="Callable[..., Coroutine[Any, Any, Any]]")


@contextmanager
def told_elsewhere() -> Iterator[None]:
    """Make changes that somebody else logs."""
    token = IS_TOLD.set(True)
    try:
        yield
    finally:
        IS_TOLD.reset(token)


def audited(method: M) -> M:
    """Log what a method of a listener has changed, from what and to what, as one INFO line; see `ListenerLog`."""
    signature = inspect.signature(method)
    name = method.__name__

    @wraps(method)
    async def change(control: ListenerControl, /, *args: Any, **named: Any) -> Any:
        if IS_TOLD.get() or not logger.isEnabledFor(logging.INFO):
            return await method(control, *args, **named)
        before = await look_before(control, name)
        with told_elsewhere():
            result = await method(control, *args, **named)
        given = signature.bind(control, *args, **named).arguments
        told = await describe_change(control, name, given, before, result)
        if told is not None:
            log: ListenerLog = control._site.log  # type: ignore[attr-defined] # noqa: SLF001 (a Listener's)
            log.say(logging.INFO, f"{name} by this program: %s", told)
        return result

    return cast("M", change)
