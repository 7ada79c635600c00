"""Root opens the ports, and from then on this process is the user that serves."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._failures import cannot_start
from esockd_cli._upgrading import receive_sockets
from esockd_core import EsockdError, InvalidOption, SocketError
from esockd_core.privileges import open_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esockd_cli._host import Host
    from esockd_core import Address, ListenerOptions
    from esockd_core.privileges import Account


def serve_as(
    host: Host,
    listeners: Iterable[tuple[Address, ListenerOptions]],
    *,
    worker_count: int = 1,
) -> None:
    """Open the ports, and become the user that serves. Call it before a module of the user is imported.

    Nothing happens if no user was given. A process that is that user already only makes sure that it is no more.

    Args:
        host: Has the user, and where metrics are served.
        listeners: Where this process will listen, with the options of each listener.
        worker_count: How many workers will share these addresses.

    Raises:
        CommandError: An address cannot be opened, the kernel refuses, the process would keep a capability, or the user
            may not read this program.
    """
    account = host.account
    if account is None:
        return
    if account.is_current:
        _become(account, "Leave out the user and the group, or start it without capabilities.")
        return
    receive_sockets()
    try:
        anyio.run(_open_ports, host, tuple(listeners), worker_count)
    except (SocketError, InvalidOption) as error:
        raise cannot_start(error) from error
    _become(account)
    _enter_environment(account)
    _require_program(account)


def _become(account: Account, hint: str | None = None) -> None:
    try:
        account.become()
    except EsockdError as error:
        raise CommandError(f"{error}.", code="cannot_become_user", status=ExitCode.CANNOT_START, hint=hint) from error


async def _open_ports(host: Host, listeners: tuple[tuple[Address, ListenerOptions], ...], worker_count: int) -> None:
    if host.metrics is not None:
        await open_ahead(host.metrics)
    for address, options in listeners:
        await open_ahead(address, options, worker_count=worker_count)


def _enter_environment(account: Account) -> None:
    """Let no variable lead to the folders of root, as to that of its control sockets."""
    os.environ.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    os.environ.pop("XDG_RUNTIME_DIR", None)
    folder = Path(f"/run/user/{account.uid}")  # where pam_systemd(8) makes it
    with suppress(OSError):
        if folder.stat().st_uid == account.uid:
            os.environ["XDG_RUNTIME_DIR"] = str(folder)


def _require_program(account: Account) -> None:
    """See that modules can be imported later, and that workers and upgrades can start Python.

    Raises:
        CommandError: The user may not do that.
    """
    for path, mode in ((sys.executable, os.X_OK), (os.__file__, os.R_OK), (__file__, os.R_OK)):
        if not os.access(path, mode):
            raise CommandError(
                f"{account.name} may not read {path}.",
                code="cannot_read_program",
                status=ExitCode.CANNOT_START,
                hint="Install Python and esockd where every user may read them, such as /opt/esockd.",
            )
