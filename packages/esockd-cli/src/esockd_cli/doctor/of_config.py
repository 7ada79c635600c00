"""The listeners of a configuration file, before they run."""

from __future__ import annotations

import resource
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esockd_cli._worker_count import read_worker_count, worker_number
from esockd_cli.config.keys import key_of
from esockd_cli.doctor.patient import Process, Subject
from esockd_core import OPTIONS
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cli._opening import Opening
    from esockd_cli.config.read import Configuration
    from esockd_core import ListenerOptions


def subjects_of(configuration: Configuration) -> tuple[Process, list[Subject]]:
    """What would run, started from this shell."""
    file = configuration.source.file
    loop = configuration.program.get("loop", "auto")
    if loop == "auto":
        loop = "uvloop" if find_spec("uvloop") else "asyncio"
    workers = configuration.program.get("workers")
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # esockd run raises its own to the hard one
    process = Process(
        name=file,
        pid=None,
        event_loop=loop,
        processes=1 if workers is None else worker_number(read_worker_count(str(workers))),
        open_file_limit=None if limit == resource.RLIM_INFINITY else limit,
    )
    return process, [_subject(file, process, opening) for opening in configuration.openings]


def _subject(file: str, process: Process, opening: Opening) -> Subject:
    handler = opening.handler if isinstance(opening.handler, ForwardHandler) else None
    table = f"[listeners.{opening.name}] of {file}"
    return Subject(
        process=process,
        name=str(opening),
        address=opening.address,
        options=dict(_flat(opening.options)),
        is_forwarder=handler is not None,
        upstreams=None if handler is None else sum(each.kind != "unix" for each in handler.upstreams),
        folder=Path(),
        change=lambda name, value: f"write {key_of(name)} = {_toml(name, value)} under {table}",
        remove_rule=lambda rule: f'take "{rule}" out of access_rules under {table}',
    )


def _toml(name: str, value: str) -> str:
    kind = OPTIONS[name].kind
    if kind.is_list:
        return f"[{', '.join(chr(34) + part + chr(34) for part in value.split(','))}]"
    if kind.placeholder == "on|off":
        return "true" if value == "on" else "false"
    return value if value.isdecimal() else f'"{value}"'


def _flat(options: ListenerOptions) -> Iterator[tuple[str, Any]]:
    """Every option by its name, those of a group as "tcp.backlog"."""
    for name, option in OPTIONS.items():
        group = getattr(options, option.group, None) if option.group else options
        if group and hasattr(group, option.field):
            yield name, getattr(group, option.field)
    yield "access_rules", options.access_list().rules
