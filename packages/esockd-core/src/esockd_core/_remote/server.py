"""The control socket of a program: `esockd` and `ControlClient` inspect and change its listeners over it."""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from anyio.abc import SocketAttribute

from esockd_core._errors import AddressInUse, EsockdError, InvalidOption
from esockd_core._listening.server import Server
from esockd_core._options.listener import ListenerOptions
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._platform.peer_process import peer_process
from esockd_core._remote.changes import Changes
from esockd_core._remote.errors import ControlDenied, ControlError, error_to_json
from esockd_core._remote.instance import ControlSource, Instance
from esockd_core._remote.pace import Pace
from esockd_core._remote.paths import SUFFIX, control_folder, control_path, prepare_folder, read_only_path
from esockd_core._remote.session import ALL_METHODS, Session
from esockd_core._remote.wire import encode
from esockd_core._sockets.handed_over import waiting_addresses
from esockd_core.control.interface import ListenerControl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from esockd_core._connection.face import StreamConnection
    from esockd_core._remote.program_method import ProgramMethod

logger = logging.getLogger("esockd_core")

BUSY: Final = encode({"error": error_to_json(ControlError("too many control clients", code="busy"))})[0]
OPTIONS: Final = ListenerOptions(
    max_connections=128,
    max_conn_rate="250/s",
    when_limited="backlog",
    refuse_with=BUSY,
    send_timeout=10.0,
    shutdown_timeout=1.0,
    linger_timeout=0.5,
    tcp=TcpOptions(backlog=128),
)


class ControlServer:
    """Serves the control socket of a program, for the duration of a block.

    It is a Unix socket for this user and root alone. If it cannot be opened, or fails later, the log has a line and the
    program goes on without it.

    Args:
        source: The program's `Server`, or one `Listener`.
        name: The name of the program and of its socket: letters, digits and `_.-`. If another running program has the
            name, the process id is added. None is the name of the script with the process id.
        path: The path of the socket, instead of one in the user's folder (see `control_path`).
        read_only: Mode and owner of a second socket, over which nothing can be changed, such as
            `UnixOptions(mode=0o660, group="monitoring")`. It serves everybody who may connect. None for none.
        methods: Methods of the program itself, by name, for `ControlClient.call`.

    Raises:
        InvalidOption: If the name cannot be a file's, or a method has the name of another one.
    """

    def __init__(
        self,
        source: ControlSource | ListenerControl,
        name: str | None = None,
        *,
        path: str | Path | None = None,
        read_only: UnixOptions | None = None,
        methods: Mapping[str, ProgramMethod] = MappingProxyType({}),
    ) -> None:
        for taken in methods.keys() & set(ALL_METHODS):
            raise InvalidOption("every control socket has a method of this name", option="methods", value=taken)
        self._source = _Only(source) if isinstance(source, ListenerControl) else source
        self._name = name or _script_name()
        self._wanted = None if path is None else Path(path).absolute()
        if path is None:
            control_path(self._name)
        self._read_only = read_only
        self._methods = methods
        self._servers = Server()
        self._changes = Changes()
        self._path: Path | None = None

    @property
    def name(self) -> str:
        """The name of the program."""
        return self._name

    @property
    def path(self) -> Path | None:
        """The path of the socket; None if there is none."""
        return self._path

    async def __aenter__(self) -> Self:
        await self._servers.__aenter__()
        try:
            await self._open()
        except (EsockdError, OSError) as error:
            logger.warning("no control socket: %s", error)
        except BaseException:
            await self._servers.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._path = None
        return await self._servers.__aexit__(exc_type, exc, traceback)

    async def suspend(self) -> None:
        """Take no more clients: new ones wait in the kernel's queue."""
        for listener in self._servers.listeners():
            await listener.suspend()

    async def resume(self) -> None:
        """Take clients again."""
        for listener in self._servers.listeners():
            await listener.resume()

    async def _open(self) -> None:
        if self._wanted is None:
            self._name = self._name_before() or self._name
        try:
            await self._open_at(self._wanted or self._prepared_path())
        except AddressInUse:
            if self._wanted is not None:
                raise
            self._name = f"{self._name}-{os.getpid()}"
            await self._open_at(self._prepared_path())

    def _name_before(self) -> str | None:
        """The name that the program had whose place this one takes, if it had to add its process id."""
        begin, end = f"unix:{control_path(self._name)}".removesuffix(SUFFIX) + "-", SUFFIX
        for address in waiting_addresses():
            number = address.removeprefix(begin).removesuffix(end)
            if address == f"{begin}{number}{end}" and number.isdecimal():
                return f"{self._name}-{number}"
        return None

    def _prepared_path(self) -> Path:
        prepare_folder(control_folder())
        return control_path(self._name)

    async def _open_at(self, path: Path) -> None:
        instance = Instance(self._source, self._name, self._methods)
        await self._serve(instance, path, UnixOptions(mode=0o600), is_read_only=False)
        self._path = path
        if self._read_only is not None:
            await self._serve(instance, read_only_path(path), self._read_only, is_read_only=True)

    async def _serve(self, instance: Instance, path: Path, unix: UnixOptions, *, is_read_only: bool) -> None:
        pace, changes = Pace(), self._changes

        async def serve(connection: StreamConnection) -> None:
            peer = peer_process(connection.extra(SocketAttribute.raw_socket))  # noqa: S610
            if not is_read_only and peer is not None and peer.uid not in (os.geteuid(), 0):
                denied = ControlDenied(f"this socket is for uid {os.geteuid()} and root", code="denied")
                await connection.send(encode({"error": error_to_json(denied)})[0])
                connection.abort("source_forbidden")
                return
            await Session(instance, changes, connection, peer, pace, is_read_only=is_read_only).serve()

        # Text, as an address is: a path may begin with "@".
        address = f"unix:{path}"
        await self._servers.open("control", address, serve, replace(OPTIONS, unix=unix))


class _Only:
    """One listener as a source."""

    def __init__(self, control: ListenerControl) -> None:
        self._controls = (control,)

    def listeners(self) -> Iterable[ListenerControl]:
        return self._controls


def _script_name() -> str:
    stem = re.sub(r"[^A-Za-z0-9_.-]|^[^A-Za-z0-9_]+", "", Path(sys.argv[0]).stem)[:40]
    return f"{stem or 'python'}-{os.getpid()}"
