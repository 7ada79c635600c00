"""Running instances and their listeners, as their control sockets tell."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esockd_cli._instances import choose_listener, short_name
from esockd_cli.doctor.patient import Process, Subject
from esockd_core import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_core import ControlClient, ListenerStatus


async def examine_instance(client: ControlClient, wanted: str | None = None) -> tuple[Process, list[Subject]]:
    """Ask an instance for all of its listeners, or for one.

    Args:
        client: Connected to it.
        wanted: The listener that was named; None for all.

    Raises:
        EsockdError: It does not answer.
        CommandError: It has no such listener.
    """
    status = await client.get_instance()
    process = Process(
        name=status.name,
        pid=status.pid,
        event_loop=status.event_loop,
        processes=max(1, status.workers),
        open_file_limit=status.open_file_limit,
        collector=await _collector(client),
    )
    listeners = await client.listeners()
    chosen = listeners if wanted is None else (choose_listener(listeners, wanted, status.name),)
    return process, [await _subject(client, process, each, listeners) for each in chosen]


async def _collector(client: ControlClient) -> Any:
    if "get_collector" not in client.greeting.methods:
        return None
    return await client.call("get_collector")


async def _subject(
    client: ControlClient, process: Process, status: ListenerStatus, listeners: Sequence[ListenerStatus]
) -> Subject:
    options = await client.listener(status.name, status.address).get_options()
    name = shlex.quote(short_name(status, listeners))
    instance = shlex.quote(process.name)
    return Subject(
        process=process,
        name=f"{short_name(status, listeners)} of {process.name}",
        address=parse_address(status.address),
        options=options,
        is_forwarder=status.handler.endswith(":ForwardHandler"),
        upstreams=None,
        folder=_folder_of(process),
        change=lambda option, value: f"esockd set -i {instance} {name} {shlex.quote(f'{option}={value}')}",
        remove_rule=lambda rule: f"esockd rules remove -i {instance} {name} {rule}",
    )


def _folder_of(process: Process) -> Path:
    """Where the relative paths of a process start; this folder, where that cannot be seen."""
    try:
        return Path(f"/proc/{process.pid}/cwd").readlink()
    except OSError:
        return Path()
