"""Inspecting and changing the listeners of another process over its control socket.

    async with ControlClient("edge") as client:               # a name, or the path of a socket
        client.greeting                                       # name, pid, version, read_only, methods
        for status in await client.listeners():               # every ListenerStatus
            ...
        echo = client.listener("echo")                        # a ListenerControl
        await echo.deny("203.0.113.0/24")
        async with client.watch(interval=1.0) as snapshots:   # an InstanceSnapshot each second
            async for snapshot in snapshots:
                ...

`find_control_sockets()` has the names of all programs with a socket in this user's folder. Some may be stale, which
only connecting tells, by `InstanceUnreachable`. A method raises what it raises in the same process, and also
`ControlError` and its subclasses: `ControlDenied` for a change over a read-only connection, `UnknownMethod` if the
other side has another version, `InstanceUnreachable` if the program ends meanwhile. Several tasks may use one client. A
long wait, as in `drain`, `wait_closed` and `watch`, does not delay other requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import anyio

from esockd_core._plain import make_reader
from esockd_core._remote.channel import Channel, unreachable
from esockd_core._remote.errors import ControlDenied, ControlError, UnknownMethod
from esockd_core._remote.paths import control_path, read_only_path
from esockd_core._remote.remote_listener import RemoteListener
from esockd_core._remote.subscription import Subscription
from esockd_core._remote.wire import PROTOCOL
from esockd_core.control.instance import ControlGreeting, InstanceStatus
from esockd_core.control.values import ListenerStatus

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    from anyio.abc import SocketStream, TaskGroup

    from esockd_core.control.interface import ListenerControl

STATUSES: Final = make_reader(tuple[ListenerStatus, ...])


class ControlClient:
    """Speaks to a program that has a `ControlServer`, for the duration of a block.

    Args:
        instance: The name of the program, or the path of its socket.
        read_only: Whether to give up the right to change anything.
        timeout: Seconds to wait for the first answer of the program.

    Raises:
        InvalidOption: If the name cannot be that of a program.
    """

    def __init__(self, instance: str | PathLike[str], *, read_only: bool = False, timeout: float = 5.0) -> None:
        if isinstance(instance, str) and "/" not in instance:
            path = control_path(instance)
            self._paths: tuple[Path, ...] = (path, read_only_path(path))
        else:
            self._paths = (Path(instance),)
        self._read_only = read_only
        self._timeout = timeout
        self._stream: SocketStream | None = None
        self._channel: Channel | None = None
        self._tasks: TaskGroup | None = None
        self._greeting: ControlGreeting | None = None

    @property
    def greeting(self) -> ControlGreeting:
        """The greeting of the program, from when the client connected."""
        if self._greeting is None:
            raise RuntimeError("this client is not connected: use `async with ControlClient(...) as client:`")
        return self._greeting

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            InstanceUnreachable: If no such program runs, or if it does not answer.
            ControlDenied: If its socket belongs to another user.
            UnknownMethod: If its version speaks another protocol.
            ControlError: If it has too many clients.
        """
        self._stream = await self._connect()
        self._channel = Channel(self._stream, str(self._paths[0]))
        try:
            self._greeting = await self._greet(self._channel)
            self._tasks = await anyio.create_task_group().__aenter__()
        except BaseException:
            await self._disconnect()
            raise
        self._tasks.start_soon(self._channel.run)
        return self

    async def _greet(self, channel: Channel) -> ControlGreeting:
        try:
            with anyio.fail_after(self._timeout):
                greeting = _read_greeting(await channel.greeting())
                if self._read_only and not greeting.read_only:
                    greeting = _read_greeting(await channel.promise_to_look_only())
        except TimeoutError as error:
            raise unreachable(
                f"{self._paths[0]} has not answered for {self._timeout:g} seconds: its event loop may be blocked"
            ) from error
        return greeting

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return None
        tasks.cancel_scope.cancel()
        try:
            return await tasks.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            if exc is not None and group.exceptions == (exc,):
                return False  # what the block itself raised, and nothing else
            raise
        finally:
            await self._disconnect()

    async def _connect(self) -> SocketStream:
        refused: PermissionError | None = None
        for path in self._paths:
            try:
                with anyio.fail_after(self._timeout):
                    return await anyio.connect_unix(path)
            except PermissionError as error:
                refused = refused or error
            except FileNotFoundError as error:
                if refused is None:
                    raise unreachable(f"no program has the control socket {path}") from error
            except ConnectionRefusedError as error:
                raise unreachable(f"nobody serves {path} any more: its program has ended") from error
            except (OSError, TimeoutError) as error:
                raise unreachable(f"cannot connect to {path}: {error}") from error
        raise ControlDenied(f"{self._paths[0]} is for another user", code="denied") from refused

    async def _disconnect(self) -> None:
        if self._stream is not None:
            await anyio.aclose_forcefully(self._stream)

    async def listeners(self) -> tuple[ListenerStatus, ...]:
        """The listeners of the program, in the order in which they were opened."""
        statuses: tuple[ListenerStatus, ...] = await self._ask("listeners", STATUSES)
        return statuses

    async def get_instance(self) -> InstanceStatus:
        """The status of the program at this moment."""
        status: InstanceStatus = await self._ask("get_instance", InstanceStatus.from_dict)
        return status

    async def restart(self) -> None:
        """Let the program replace its workers one after the other, and return when all are replaced.

        Raises:
            ControlError: If the program has no workers, or if one cannot start; the ones before go on.
            ControlDenied: If this connection may change nothing.
        """
        await self._connected().request("restart", {}, waits=True)

    def listener(self, name: str, address: str | None = None) -> ListenerControl:
        """One listener of the program. If it does not exist, its methods raise `UnknownListener`.

        Args:
            name: Its name.
            address: Its address, as it was opened or as it is bound, if several have the name.
        """
        return RemoteListener(self._connected(), name, address)

    def watch(self, interval: float = 1.0) -> Subscription:
        """Snapshots of the program and the counters of all its listeners.

        Use it as `async with client.watch() as snapshots:` and iterate over that.

        Args:
            interval: Seconds from one to the next, 0.1 to 3600.
        """
        return Subscription(self._connected(), interval)

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method that the program itself has added to its control socket.

        Args:
            method: Its name; `greeting.methods` has those of every kind.
            params: Its parameters, as JSON has them.

        Raises:
            UnknownMethod: If the program has no such method.
            ControlDenied: If it is a change, and the connection is read-only.
        """
        return await self._connected().request(method, params)

    async def _ask(self, method: str, read: Any) -> Any:
        try:
            return read(await self._connected().request(method, {}))
        except ValueError as error:
            raise ControlError(f"the answer to {method} cannot be read: {error}", code="bad_answer") from error

    def _connected(self) -> Channel:
        if self._channel is None:
            raise RuntimeError("this client is not connected: use `async with ControlClient(...) as client:`")
        return self._channel


def _read_greeting(given: Any) -> ControlGreeting:
    if given.get("protocol") != PROTOCOL:
        raise UnknownMethod(
            f"the program speaks version {given.get('protocol')!r} of the control protocol, and this esockd version "
            f"{PROTOCOL}",
            code="unknown_method",
            hint="Use the esockd that the program has.",
        )
    try:
        return ControlGreeting.from_dict(given)
    except ValueError as error:
        raise unreachable(f"the greeting cannot be read: {error}") from error
