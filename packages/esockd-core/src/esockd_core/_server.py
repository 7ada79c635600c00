"""A registry of running listeners, and the task group they live in."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import anyio

from esockd_core._address import parse_address
from esockd_core._errors import AlreadyOpen, ListenerClosed, UnknownListener
from esockd_core._listener import Listener
from esockd_core._option_changes import merge_options
from esockd_core._stats import Counters

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus

    from esockd_core._address import Address
    from esockd_core._handler import Handler
    from esockd_core._options import ListenerOptions

logger = logging.getLogger("esockd_core")


class Server:
    """Opens, finds and closes listeners, each on its own: when one fails, it is logged and the others go on.

    Use it as an asynchronous context manager; leaving the block closes every listener gracefully.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._counters: dict[tuple[str, str], Counters] = {}  # of closed listeners, for the next of the same key
        self._task_group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._task_group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        task_group, self._task_group = self._task_group, None
        if task_group is None:
            return None
        if exc is None:
            for listener in self.listeners():
                task_group.start_soon(_close_if_run, listener)
        try:
            return await task_group.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            if exc is not None and group.exceptions == (exc,):
                return False  # what the block itself raised, and nothing else
            raise

    async def open(
        self, name: str, address: object, handler: Handler, options: ListenerOptions | None = None, **changes: Any
    ) -> Listener:
        """Open a listener and return it once it accepts.

        Args:
            name: Part of its key, with the address; counters belong to the key and survive its closing.
            address: Where to listen; see `Listener`.
            handler: A coroutine function, or a `CallbackHandler`.
            options: What else it does; see `ListenerOptions`.
            changes: Single options by name, on top of `options`; and `on_event`.

        Raises:
            AlreadyOpen: There is a listener of that name and address.
            InvalidAddress: The address is none.
            InvalidOption: An option is out of bounds, unknown or does not apply.
            AddressInUse: Somebody else listens there.
            CannotBind: The address cannot be opened.
            ListenerClosed: The server ended meanwhile.
        """
        if self._task_group is None:
            raise RuntimeError("this server is not running: use `async with Server() as server:`")
        where = parse_address(address)
        if self._find(name, where):
            raise AlreadyOpen(f"listener {name} on {where} is open already: close it first, or give another name")
        on_event = changes.pop("on_event", None)
        key = (name, str(where))
        counters = self._counters.get(key) or Counters()
        listener = Listener(
            name, address, handler, merge_options(options, changes), on_event=on_event, counters=counters
        )
        # Its own while it is open: it takes them along to another address, and who opens here then counts anew.
        self._counters.pop(key, None)
        self._listeners.append(listener)
        try:
            await self._task_group.start(self._run, listener, counters)
        except BaseException:
            if listener in self._listeners:  # cancelled before it ran
                self._listeners.remove(listener)
            raise
        return listener

    async def _run(self, listener: Listener, counters: Counters, *, task_status: TaskStatus[Listener]) -> None:
        if self._task_group is None:
            self._listeners.remove(listener)
            raise ListenerClosed(f"the server ended before listener {listener.name} was open")
        try:
            await listener.run(task_status=task_status)
        except Exception:
            if not listener.was_open:
                raise  # `open` tells its caller
            logger.exception("listener %s failed and is closed", listener.name)
        finally:
            self._listeners.remove(listener)
            self._counters[listener.name, str(listener.address)] = counters

    def listeners(self) -> tuple[Listener, ...]:
        """The open listeners, in the order of their opening."""
        return tuple(self._listeners)

    def listener(self, name: str, address: object = None) -> Listener:
        """Find a listener by name, and by address where several have the name.

        Raises:
            UnknownListener: There is none, or more than one.
        """
        wanted = None if address is None else parse_address(address)
        found = self._find(name, wanted)
        if len(found) == 1:
            return found[0]
        if found:
            where = ", ".join(str(listener.address) for listener in found)
            raise UnknownListener(f"{len(found)} listeners have the name {name}: give one of the addresses {where}")
        names = ", ".join(sorted({listener.name for listener in self._listeners})) or "none"
        raise UnknownListener(f"no listener {name}{'' if wanted is None else f' on {wanted}'}; open: {names}")

    def _find(self, name: str, address: Address | None) -> list[Listener]:
        return [
            listener
            for listener in self._listeners
            if listener.name == name and (address is None or str(listener.address) == str(address))
        ]

    async def close(self, name: str, address: object = None) -> None:
        """Close a listener gracefully.

        Raises:
            UnknownListener: There is none, or more than one.
        """
        await self.listener(name, address).close()

    async def reopen(self, name: str, address: object = None, *, move_to: object = None) -> None:
        """Close the listening sockets of a listener and open new ones; its connections and counters go on.

        Args:
            name: Which listener.
            address: Which of several of that name.
            move_to: Where it listens from now on; None is where it listens already.

        Raises:
            UnknownListener: There is none, or more than one.
            ListenerClosed: It is draining.
            AddressInUse: Somebody else listens there; see `Listener.reopen`.
            CannotBind: The address cannot be opened.
        """
        await self.listener(name, address).reopen(move_to)


async def _close_if_run(listener: Listener) -> None:
    with suppress(ListenerClosed):  # its opening has not begun, and finds that the server has ended
        await listener.close()
