"""The listeners of a worker process: those that it begins with, and those that its parent opens and changes later."""

from __future__ import annotations

import os
from base64 import b64decode
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import anyio

from esockd_core._errors import EsockdError, ListenerClosed, UnknownListener
from esockd_core._listening.audited import told_elsewhere
from esockd_core._options.listener import ListenerOptions
from esockd_core._remote.errors import ControlError
from esockd_core._remote.program_method import ProgramMethod
from esockd_core.control.handler_path import import_handler
from esockd_core.workers._descriptors import receive_descriptors
from esockd_core.workers._listener import SharedListener
from esockd_core.workers._memory import SharedMemory
from esockd_core.workers._orders import unpack

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from anyio.abc import TaskGroup

    from esockd_core._connection.handler import Handler
    from esockd_core.workers._orders import ChangeOrder, ListenerOrder, Order


class Worker:
    """One worker process, as a source of listeners for a control session.

    Args:
        order: What the parent told.
        inbox: The pair on which descriptors come.

    Raises:
        Exception: What a module raises that is imported for a handler.
    """

    def __init__(self, order: Order, inbox: socket.socket) -> None:
        self._slot = order.slot
        self._inbox = inbox
        self._listeners = {
            each.number: _make_listener(each, _make_handler(each.handler, each.arguments), each.memory, order.slot)
            for each in order.listeners
        }
        self._before: dict[int, tuple[ListenerOptions, Handler]] = {}
        self._task_group: TaskGroup | None = None

    def listeners(self) -> Iterable[SharedListener]:
        """Those that are open, and closed ones whose last numbers the parent has not taken over yet."""
        return tuple(self._listeners.values())

    async def start(self, task_group: TaskGroup) -> None:
        """Return when every listener accepts, or could."""
        for listener in self.listeners():
            await task_group.start(listener.run)
        self._task_group = task_group

    async def retire(self) -> None:
        """Close every listener, and open no more. Clients in the queues are left to the worker that takes over."""
        self._task_group = None
        async with anyio.create_task_group() as retiring:
            for listener in self.listeners():
                retiring.start_soon(listener.retire)

    # What the parent asks for

    def methods(self) -> dict[str, ProgramMethod]:
        """What only the parent of a worker asks for."""
        return {
            "begin": ProgramMethod(self._begin),
            "change": ProgramMethod(self._change),
            "put_back": ProgramMethod(self._put_back),
            "wait_draining": ProgramMethod(self._wait_draining),
            "forget": ProgramMethod(self._forget),
        }

    async def _begin(self, given: Mapping[str, Any]) -> None:
        memory, *sockets = receive_descriptors(self._inbox, given["number"], given["descriptors"])
        with ExitStack() as undo:
            for descriptor in sockets:
                undo.callback(os.close, descriptor)
            with ExitStack() as unmapped:  # an error of a handler keeps hold of what its callers have
                unmapped.callback(os.close, memory)
                if self._task_group is None:
                    raise ListenerClosed("this worker retires: it opens no listener any more")
                with _failing_as_at_the_start():
                    order: ListenerOrder = unpack(b64decode(given["order"]))
                    handler = _make_handler(order.handler, order.arguments)
                unmapped.pop_all()
            with _failing_as_at_the_start():
                listener = _make_listener(replace(order, descriptors=tuple(sockets)), handler, memory, self._slot)
            undo.pop_all()
        try:
            await self._task_group.start(listener.run)
        except BaseException:
            await listener.forget()
            raise
        self._listeners[order.number] = listener

    async def _change(self, given: Mapping[str, Any]) -> None:
        self._before.pop(given["listener"], None)
        with _failing_as_at_the_start():
            order: ChangeOrder = unpack(b64decode(given["order"]))
            handler = None if order.handler is None else _make_handler(order.handler, order.arguments)
        listener = self._find(order.number)
        before = replace(listener.options, access_rules=listener.options.access_list()), listener.handler
        rules: Any = listener.options.access_list() if order.rules is None else order.rules
        await _put(listener, replace(before[0], **order.options, access_rules=rules), handler or before[1])
        self._before[order.number] = before

    async def _put_back(self, given: Mapping[str, Any]) -> None:
        number: int = given["listener"]
        before = self._before.pop(number, None)
        if before is not None:
            await _put(self._find(number), *before)

    async def _wait_draining(self, given: Mapping[str, Any]) -> None:
        await self._find(given["listener"]).wait_draining()

    async def _forget(self, given: Mapping[str, Any]) -> None:
        number: int = given["listener"]
        listener = self._find(number)
        await listener.wait_closed()
        self._before.pop(number, None)
        if self._listeners.pop(number, None) is not None:
            await listener.forget()

    def _find(self, number: int) -> SharedListener:
        if (listener := self._listeners.get(number)) is None:
            raise UnknownListener(f"this worker has no listener {number}")
        return listener


async def _put(listener: SharedListener, options: ListenerOptions, handler: Handler) -> None:
    """Put options and a handler in force, both or neither."""
    old = listener.handler
    with told_elsewhere():
        await listener.set_handler(handler)
        try:
            given: Any = {field.name: getattr(options, field.name) for field in fields(ListenerOptions)}
            await listener.reset_options(**given)
        except BaseException:
            await listener.set_handler(old)
            raise


def _make_listener(order: ListenerOrder, handler: Handler, memory: int, slot: int) -> SharedListener:
    options = replace(order.options, access_rules=order.rules)
    return SharedListener(order, handler, options, SharedMemory(memory).live, slot)


def _make_handler(place: str, arguments: tuple[Any, ...] | None) -> Handler:
    return import_handler(place) if arguments is None else cast("Handler", find(place)(*arguments))


def find(path: str) -> Callable[..., Any]:
    """Import the function at "package.module:name".

    Raises:
        Exception: What the module raises.
    """
    module, _, name = path.partition(":")
    return cast("Callable[..., Any]", reduce(getattr, name.split("."), import_module(module)))


@contextmanager
def _failing_as_at_the_start() -> Iterator[None]:
    """Tell what a module raises while it is imported as a worker does that cannot start."""
    try:
        yield
    except EsockdError:
        raise
    except (Exception, SystemExit) as error:
        raise cannot_start(error) from error


def cannot_start(error: BaseException) -> EsockdError:
    """What the parent is told of an error of a worker that begins."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, EsockdError):
        return error
    return ControlError(f"{type(error).__name__}: {error}", code="cannot_start")
