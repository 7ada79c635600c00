"""Running listeners by name, and the task group that they live in."""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Self, Unpack

import anyio

from esockd_core._address import parse_address
from esockd_core._errors import AlreadyOpen, ListenerClosed, UnknownListener
from esockd_core._listening.listener import Listener
from esockd_core._listening.shelter import sheltered_task_group
from esockd_core._loops.background import start_in_background
from esockd_core._options.changes import merge_options
from esockd_core._stats.counters import Counters, keep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus

    from esockd_core._address import Address
    from esockd_core._connection.events import ConnectionEvent
    from esockd_core._connection.handler import Handler
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.listener import ListenerOptions

logger = logging.getLogger("esockd_core")

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Server:
    """Opens, finds and closes listeners. When one fails, the failure is logged and the others go on.

    Use it as an asynchronous context manager. Leaving the block closes every listener gracefully, whether the block
    ended, raised or was cancelled. A cancellation does not cut the drain short; `shutdown_timeout` bounds it. In a
    framework with a start hook and a stop hook, call `start` and `stop`.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._counters: dict[tuple[str, str], Counters] = {}  # of closed listeners, for the next of the same key
        self._moving: dict[Listener, Address] = {}  # where those that are being reopened will listen
        self._task_group: TaskGroup | None = None  # set while listeners may be opened
        self._shelter: AbstractAsyncContextManager[TaskGroup] | None = None
        self._stop_requested = anyio.Event()
        self._stopped = anyio.Event()
        self._background: object = None

    async def __aenter__(self) -> Self:
        if self._shelter is not None:
            raise RuntimeError("this server is running already: make another one")
        shelter = sheltered_task_group()
        self._task_group = await shelter.__aenter__()
        self._shelter = shelter
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        shelter, self._shelter = self._shelter, None
        task_group, self._task_group = self._task_group, None
        if shelter is None or task_group is None:
            return None
        for listener in self.listeners():
            task_group.start_soon(_close_if_run, listener)
        return await shelter.__aexit__(exc_type, exc, traceback)

    # Running without a block

    async def start(self) -> None:
        """Run until `stop` is called from any task, for frameworks with a start hook and a stop hook.

        On trio the server is a system task, in which a `SystemExit` or `KeyboardInterrupt` of a handler becomes a
        `trio.TrioInternalError`.
        """
        if self._shelter is not None or self._background is not None:
            raise RuntimeError("this server is running already: make another one")
        self._stop_requested, self._stopped = anyio.Event(), anyio.Event()
        started = anyio.Event()
        self._background = start_in_background(lambda: self._run_in_background(started))
        await started.wait()

    async def stop(self) -> None:
        """Close every listener gracefully, and return once the last connection has ended."""
        self._stop_requested.set()
        if self._background is not None:
            await self._stopped.wait()

    async def _run_in_background(self, started: anyio.Event) -> None:
        try:
            async with self:
                started.set()
                await self._stop_requested.wait()
        finally:
            self._background = None
            self._stopped.set()

    async def serve_until_signal(self) -> signal.Signals:
        """Serve until SIGINT or SIGTERM comes, then close every listener gracefully. Another signal kills them.

        Call it from the main thread, because only that may handle signals.

        Returns:
            The first signal.
        """
        with anyio.open_signal_receiver(*STOP_SIGNALS) as signals:
            first = await anext(signals)
            logger.info("%s: closing every listener; another signal hurries", first.name)
            async with anyio.create_task_group() as task_group:
                for listener in self.listeners():
                    task_group.start_soon(_close_if_run, listener)
                task_group.start_soon(self._hurry, signals)
                for listener in self.listeners():
                    await listener.wait_closed()
                task_group.cancel_scope.cancel()
        return first

    async def _hurry(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for _ in signals:
            async with anyio.create_task_group() as task_group:
                for listener in self.listeners():
                    task_group.start_soon(_kill_if_run, listener)

    async def open(
        self,
        name: str,
        address: object,
        handler: Handler,
        options: ListenerOptions | None = None,
        *,
        on_event: Callable[[ConnectionEvent], None] | None = None,
        suspended: bool = False,
        **changes: Unpack[OptionArguments],
    ) -> Listener:
        """Open a listener and return it once it accepts.

        Args:
            name: With the address, the key of the listener. Counters belong to the key and survive a
                close: those of the 1,000 listeners that closed last are kept.
            address: Where to listen; see `Listener`.
            handler: A coroutine function, or a `CallbackHandler`.
            options: Its options; see `ListenerOptions`.
            on_event: Called at the start and at the end of each connection.
            suspended: Whether it opens its address but accepts nobody until `resume`.
            changes: Single options by name, on top of `options`.

        Raises:
            AlreadyOpen: If there is a listener with that name and address.
            InvalidAddress: If the address is not valid.
            InvalidOption: If an option is unknown, out of bounds or does not apply.
            AddressInUse: If somebody else listens there.
            CannotBind: If the address cannot be opened.
            ListenerClosed: If the server ended meanwhile.
        """
        if self._task_group is None:
            raise RuntimeError("this server is not running: use `async with Server() as server:`")
        where = parse_address(address)
        self._require_free(name, where)
        key = (name, str(where))
        counters = self._counters.get(key) or Counters()
        listener = Listener(
            name,
            address,
            handler,
            merge_options(options, changes),
            on_event=on_event,
            suspended=suspended,
            counters=counters,
        )
        # Its own while it is open: it takes them to another address, and a listener opened here then starts from 0.
        self._counters.pop(key, None)
        listener._claim_address = partial(self._claim, listener)  # noqa: SLF001 (nobody else may)
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
            keep(self._counters, (listener.name, str(listener.address)), counters)

    def listeners(self) -> tuple[Listener, ...]:
        """The open listeners, in the order in which they were opened."""
        return tuple(self._listeners)

    def listener(self, name: str, address: object = None) -> Listener:
        """Find a listener by name, and by address if several have the name.

        Raises:
            UnknownListener: If there is none, or more than one.
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

    def _require_free(self, name: str, where: Address) -> None:
        is_moving_there = any(each.name == name and str(to) == str(where) for each, to in self._moving.items())
        if is_moving_there or self._find(name, where):
            raise AlreadyOpen(f"listener {name} on {where} is open already: close it first, or give another name")

    @contextmanager
    def _claim(self, listener: Listener, where: Address) -> Iterator[None]:
        """Keep an address for a listener that moves there."""
        self._require_free(listener.name, where)
        self._moving[listener] = where
        try:
            yield
        finally:
            del self._moving[listener]

    async def close(self, name: str, address: object = None) -> None:
        """Close a listener gracefully.

        Raises:
            UnknownListener: If there is none, or more than one.
        """
        await self.listener(name, address).close()

    async def reopen(self, name: str, address: object = None, *, move_to: object = None) -> None:
        """Close the listening sockets of a listener and open new ones. Its connections and counters go on.

        Args:
            name: The listener's name.
            address: Its address, if several have that name.
            move_to: Its new address; None keeps the one that it has.

        Raises:
            UnknownListener: If there is none, or more than one.
            ListenerClosed: If it is draining.
            AlreadyOpen: If there is another listener of that name at the new address.
            AddressInUse: If somebody else listens there; see `Listener.reopen`.
            CannotBind: If the address cannot be opened.
        """
        await self.listener(name, address).reopen(move_to)


async def _close_if_run(listener: Listener) -> None:
    with suppress(ListenerClosed):  # its opening has not begun, and finds that the server has ended
        await listener.close()


async def _kill_if_run(listener: Listener) -> None:
    with suppress(ListenerClosed):
        await listener.kill()
