"""The program behind a control socket: its listeners and its status."""

from __future__ import annotations

import os
import time
from asyncio import CancelledError, get_running_loop
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._address import parse_address
from esockd_core._errors import InvalidAddress, InvalidOption, UnknownListener
from esockd_core._platform.open_files import open_file_limit
from esockd_core._platform.process import memory_bytes, open_file_count
from esockd_core._remote.errors import ControlError
from esockd_core._remote.wire import to_text
from esockd_core.control.instance import InstanceSnapshot, InstanceStatus, ListenerSnapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from esockd_core._remote.program_method import ProgramMethod
    from esockd_core.control.instance import WorkerStatus
    from esockd_core.control.interface import ListenerControl
    from esockd_core.control.values import ListenerStatus

SNAPSHOT_CHUNK: Final = 32  # listeners looked at before the event loop gets its turn
FRESH_S: Final = 0.05  # so long one snapshot serves all who want one


class ControlSource(Protocol):
    """Knows the listeners of a program, as `Server` does."""

    def listeners(self) -> Iterable[ListenerControl]:
        """The open listeners."""
        ...


@runtime_checkable
class WorkerSource(ControlSource, Protocol):
    """Knows the listeners of a program and the workers that serve them."""

    def workers(self) -> tuple[WorkerStatus, ...]:
        """The worker processes."""
        ...

    async def restart(self) -> None:
        """Replace the workers one after the other.

        Raises:
            EsockdError: If one cannot start.
        """


class Instance:
    """A program with listeners, to look at as a whole. `ControlServer` answers its clients by one.

    Args:
        source: Knows its listeners, as `Server` and `Workers` do.
        name: Its name.
        methods: Its own methods, by name.

    Attributes:
        name: Its name.
        methods: Its own methods, by name.
        version: The version of this package.
        started_at: When this object was made, in seconds since the epoch.
    """

    def __init__(
        self, source: ControlSource, name: str, methods: Mapping[str, ProgramMethod] = MappingProxyType({})
    ) -> None:
        self._source = source
        self.name = name
        self.methods = methods
        self.version: str = version("esockd-core")
        self.started_at: float = time.time()
        self._started = time.monotonic()
        self._event_loop = _event_loop()
        self._snapshot: tuple[float, str] = (float("-inf"), "")

    def status(self) -> InstanceStatus:
        """The status of the program."""
        return InstanceStatus(
            name=self.name,
            pid=os.getpid(),
            version=self.version,
            event_loop=self._event_loop,
            started_at=self.started_at,
            uptime=time.monotonic() - self._started,
            workers=len({each.number for each in self._workers()}),
            open_files=open_file_count(),
            open_file_limit=open_file_limit(),
            memory_bytes=memory_bytes(),
            cpu_time=time.process_time(),
        )

    def _workers(self) -> tuple[WorkerStatus, ...]:
        return self._source.workers() if isinstance(self._source, WorkerSource) else ()

    async def restart(self) -> None:
        """Replace the workers one after the other.

        Raises:
            ControlError: If the program has none.
            EsockdError: If one cannot start.
        """
        if not isinstance(self._source, WorkerSource):
            raise ControlError(
                f"{self.name} serves its listeners by itself: only workers can be replaced",
                code="no_workers",
                hint="Start it with several workers.",
            )
        await self._source.restart()

    async def listeners(self) -> tuple[ListenerStatus, ...]:
        """The status of every listener."""
        return tuple([await control.get_status() for control in self._source.listeners()])

    async def snapshot(self) -> InstanceSnapshot:
        """The program and its listeners at this moment."""
        listeners = [each async for each in self._look_at_listeners()]
        # Last: looking at its listeners brings news of the workers.
        return InstanceSnapshot(
            at=time.time(), instance=self.status(), listeners=tuple(listeners), workers=self._workers()
        )

    async def _look_at_listeners(self) -> AsyncIterator[ListenerSnapshot]:
        for number, control in enumerate(tuple(self._source.listeners()), start=1):
            yield ListenerSnapshot(status=await control.get_status(), stats=await control.get_stats())
            if number % SNAPSHOT_CHUNK == 0:
                await checkpoint()

    async def snapshot_text(self) -> str:
        """The program and its listeners at this moment, as JSON. Clients that ask at the same time share it."""
        now = time.monotonic()
        if now - self._snapshot[0] > FRESH_S:
            each = [to_text(snapshot.as_dict()) async for snapshot in self._look_at_listeners()]
            whole = InstanceSnapshot(at=time.time(), instance=self.status(), listeners=(), workers=self._workers())
            self._snapshot = (
                now,
                to_text(whole.as_dict()).replace('"listeners":[]', f'"listeners":[{",".join(each)}]', 1),
            )
        return self._snapshot[1]

    async def find(self, name: object, address: object = None) -> ListenerControl:
        """Find a listener by name, and by address if several have the name.

        Raises:
            InvalidOption: If name or address is not text.
            UnknownListener: If there is none, or more than one.
        """
        if not isinstance(name, str):
            raise InvalidOption("it takes the name of a listener", option="listener", value=name)
        if not isinstance(address, str | None):
            raise InvalidOption("it takes an address as text", option="address", value=address)
        known = [(control, await control.get_status()) for control in self._source.listeners()]
        wanted = _canonical(address)
        found = [
            (control, status)
            for control, status in known
            if status.name == name and (wanted is None or wanted in (status.address, *status.addresses))
        ]
        if len(found) == 1:
            return found[0][0]
        if found:
            where = ", ".join(status.address for _, status in found)
            raise UnknownListener(f"{len(found)} listeners have the name {name}: give one of the addresses {where}")
        names = ", ".join(sorted({status.name for _, status in known})) or "none"
        where = "" if wanted is None else f" on {wanted[:80]}"
        raise UnknownListener(f"no listener {name[:80]}{where}; open: {names}")


def _canonical(address: str | None) -> str | None:
    if address is None:
        return None
    try:
        return str(parse_address(address))
    except InvalidAddress:
        return address  # such as the text of a socket that a program opened


def _event_loop() -> str:
    if anyio.get_cancelled_exc_class() is not CancelledError:
        return "trio"
    return "uvloop" if type(get_running_loop()).__module__.startswith("uvloop") else "asyncio"
