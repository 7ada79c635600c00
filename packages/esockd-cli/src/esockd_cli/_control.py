"""The control socket of `esockd open`, over which the other commands inspect and change its listeners."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from esockd_cli._bad_options import bad_option
from esockd_cli._errors import UsageError, bad_value
from esockd_core import OPTIONS, ControlServer, InvalidOption, UnixOptions, control_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from esockd_core import ControlSource, ProgramMethod


@dataclass(frozen=True, slots=True)
class Control:
    """What is known of a control socket before it is opened.

    Attributes:
        instance: The name of this process.
        read_only: Mode of a second socket, for looking only; None for none.
        has_dashboard: Whether this process shows its own dashboard.
    """

    instance: str
    read_only: UnixOptions | None
    has_dashboard: bool = False


def read_control(
    instance: str | None, listener: str, read_only: str | None, *, is_wanted: bool, has_dashboard: bool
) -> Control | None:
    """Read the options of the control socket.

    Args:
        instance: The name that was given to this process; None for the listener's.
        listener: The name of the first listener.
        read_only: The permissions of the second socket as typed.
        is_wanted: Whether there is to be a socket at all.
        has_dashboard: Whether this process is to show its own dashboard.

    Raises:
        UsageError: A value is not valid, or does nothing without a socket.
    """
    if not is_wanted:
        for flag, value in (
            ("--instance", instance),
            ("--read-only", read_only),
            ("--dashboard", has_dashboard or None),
        ):
            if value is not None:
                raise UsageError(f"{flag} does nothing with --no-control.")
        return None
    name = instance or re.sub(r"[^A-Za-z0-9_.-]|^[^A-Za-z0-9_]+|(\.ro|\.sock)+$", "", listener)[:64] or "esockd"
    try:
        control_path(name)
    except InvalidOption as error:
        raise bad_value(error, f"--instance {name}") from error
    if read_only is None:
        return Control(name, None, has_dashboard)
    try:
        unix = UnixOptions(mode=OPTIONS["unix.mode"].kind.parse("unix.mode", read_only))
        return Control(name, unix, has_dashboard)
    except InvalidOption as error:
        if error.option == "unix.mode":
            raise bad_value(error, f"--read-only {read_only}") from error
        raise bad_option(error) from error


@asynccontextmanager
async def open_control(
    source: ControlSource, control: Control | None, methods: Mapping[str, ProgramMethod] = MappingProxyType({})
) -> AsyncIterator[ControlServer | None]:
    """Serve the control socket for the duration of a block, which gets None if there is none.

    A socket that cannot be opened is one line in the log, and the listeners go on without it.

    Args:
        source: Has the listeners.
        control: What is known of the socket; None for none.
        methods: What may be asked besides what is about listeners.
    """
    if control is None:
        yield None
        return
    async with ControlServer(source, control.instance, read_only=control.read_only, methods=methods) as serving:
        yield None if serving.path is None else serving
