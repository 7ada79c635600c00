"""Serving listeners with several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

from esockd_core._errors import InvalidOption
from esockd_core._platform.child_processes import available_processors
from esockd_core.workers._processes import Settings
from esockd_core.workers._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from esockd_core._options.changes import OptionPlan
    from esockd_core.control.instance import WorkerStatus
    from esockd_core.workers._control import SharedControl
    from esockd_core.workers._model import WorkerListener

MOST: Final = 64  # as many again may retire at the same time
LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


class Workers:
    """Serves listeners with several processes on the same addresses, for the duration of a block.

    Each worker is a new Python that imports the handlers. Limits and counters hold over all of them. A worker that is
    killed, crashes or hangs is replaced, and the clients in its queue are served by the one that takes its place.
    Leaving the block closes every listener gracefully, as that of a `Server` does.

    Args:
        listeners: The listeners.
        count: How many workers there are, 1 to 64; None is one for each processor that this process may use.
        loop: Their event loop.
        setup: Where each worker imports a function from that it calls first, as "package.module:name"; None for none.
        setup_arguments: The arguments of that function.
        pin: Whether each worker runs on one processor only, where the system can do that.
        suspended: Whether the listeners open their addresses but accept nobody until each is resumed.
        start_timeout: How many seconds a worker may take until it accepts, or to import a handler later.
        stuck_timeout: A worker whose event loop does not answer for this many seconds is killed and replaced; None lets
            it be. It does not count while the parent has it import a handler.

    Raises:
        InvalidOption: If a number is out of bounds, or the loop is unknown.
    """

    def __init__(
        self,
        listeners: Sequence[WorkerListener],
        *,
        count: int | None = None,
        loop: Literal["asyncio", "uvloop", "trio"] = "asyncio",
        setup: str | None = None,
        setup_arguments: tuple[Any, ...] = (),
        pin: bool = False,
        suspended: bool = False,
        start_timeout: float = 30.0,
        stuck_timeout: float | None = 30.0,
    ) -> None:
        self._count = min(len(available_processors()), MOST) if count is None else _checked_count(count)
        if loop not in LOOPS:
            raise InvalidOption(f"it takes one of {', '.join(LOOPS)}", option="loop", value=loop)
        for name, timeout in (("start_timeout", start_timeout), ("stuck_timeout", stuck_timeout)):
            if timeout is not None and timeout <= 0:
                raise InvalidOption("it takes seconds, more than 0", option=name, value=timeout)
        backend, backend_options = LOOPS[loop]
        settings = Settings(
            count=self._count,
            backend=backend,
            backend_options=backend_options,
            setup=setup,
            setup_arguments=setup_arguments,
            pin=pin,
            suspended=suspended,
            start_timeout_s=start_timeout,
            stuck_timeout_s=stuck_timeout,
        )
        self._supervisor = Supervisor(listeners, settings)

    @property
    def count(self) -> int:
        """How many workers there are."""
        return self._count

    async def __aenter__(self) -> Self:
        """Open the addresses, and return when every worker accepts.

        Raises:
            InvalidAddress: If an address is not valid.
            InvalidOption: If an option does not apply, or exists in one process only.
            AddressInUse: If somebody else listens there.
            CannotBind: If an address cannot be opened.
            EsockdError: If a worker cannot start; the error says why, once.
        """
        await self._supervisor.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._supervisor.stop(exc_type, exc, traceback)

    def listeners(self) -> tuple[SharedControl, ...]:
        """The open listeners, in the order in which they were opened. Each speaks for all workers."""
        return self._supervisor.listeners()

    async def open(self, listener: WorkerListener, *, suspended: bool = False) -> SharedControl:
        """Open another listener in every worker, or in none, and return its control once it accepts.

        The workers import its handler while they serve the others. It is closed by its control. Cancelled before every
        worker has the listener, this leaves none of it; cancelled later, it returns the control nevertheless. If a task
        of asyncio is cancelled then by its own `cancel()`, which anyio cannot put off, the listener is closed again.

        Args:
            listener: The listener. Counters belong to its name and address, and survive a close: those of the 1,000
                listeners that closed last are kept.
            suspended: Whether it opens its address but accepts nobody until it is resumed.

        Raises:
            AlreadyOpen: If there is a listener with that name and address.
            InvalidAddress: If the address is not valid.
            InvalidOption: If an option does not apply, or exists in one process only.
            AddressInUse: If somebody else listens there.
            CannotBind: If the address cannot be opened.
            ControlError: With the code "busy" if a worker does not answer, or if they are being replaced and none runs
                within `start_timeout`: try again.
            EsockdError: If a worker cannot open it, as when the handler cannot be imported, or ends meanwhile.
            ListenerClosed: If the workers end.
        """
        return await self._supervisor.open(listener, suspended=suspended)

    async def change(self, *listeners: WorkerListener) -> tuple[OptionPlan, ...]:
        """Give open listeners other handlers and options, in every worker: all of the listeners, or none of them.

        Options that are not given go back to their defaults. Open connections go on as they are. A handler is imported
        again only where its place or its arguments are others than before.

        Args:
            listeners: The listeners as they are to be, each with the name and the address of one that is open.

        Returns:
            The options that change, for each of the listeners.

        Raises:
            ChangeRefused: If one of them is not open, is named twice, or cannot be changed; its `error` says why.
        """
        return await self._supervisor.change(listeners)

    def staying(self) -> AbstractContextManager[None]:
        """Let the workers stay for the duration of a block, although its last listener may be closed there."""
        return self._supervisor.staying()

    def workers(self) -> tuple[WorkerStatus, ...]:
        """The worker processes, those that retire included, in the order of their numbers."""
        return self._supervisor.workers()

    async def restart(self) -> None:
        """Replace the workers one after the other, so that they run the code that is installed now.

        Each takes over once it accepts, on the sockets of the one before, which then finishes its connections within
        `shutdown_timeout`. No client is refused or reset meanwhile.

        Raises:
            EsockdError: If one cannot start. The one before goes on, and those after it are not replaced.
            ListenerClosed: If the listeners close meanwhile.
        """
        await self._supervisor.restart()

    async def wait_closed(self) -> None:
        """Return when the last listener is closed and its connections have ended."""
        await self._supervisor.wait_closed()


def _checked_count(count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST:
        raise InvalidOption(f"it takes a whole number from 1 to {MOST}", option="count", value=count)
    return count
