"""What is examined: the machine, processes that run or would, and their listeners."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from esockd_cli.doctor.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from esockd_core import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """An instance that runs, or one that would run a configuration.

    Attributes:
        name: Its name.
        pid: Its process id; None if it does not run.
        event_loop: "asyncio", "uvloop" or "trio".
        processes: How many processes share its connections.
        open_file_limit: The limit on open files of each; None if there is none.
        collector: What it tells of Python's garbage collector; None if it tells nothing.
    """

    name: str
    pid: int | None
    event_loop: str
    processes: int
    open_file_limit: int | None
    collector: Mapping[str, Any] | None = None

    @property
    def folder_in_proc(self) -> str:
        """What /proc calls it; this process stands for one that does not run."""
        return "self" if self.pid is None else str(self.pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A listener that runs, or one of a configuration.

    Attributes:
        process: What it belongs to.
        name: What it is called.
        address: Where it listens.
        options: Its options by name, as `ListenerControl.get_options` shows them.
        is_forwarder: Whether each connection takes another one, to an upstream.
        upstreams: How many upstreams that are hosts it has; None if unknown.
        folder: Where the relative paths of its files start.
        change: The command, or the line of the file, that gives an option a value.
        remove_rule: The same for taking an access rule out.
    """

    process: Process
    name: str
    address: Address
    options: Mapping[str, Any]
    is_forwarder: bool
    upstreams: int | None
    folder: Path
    change: Callable[[str, str], str]
    remove_rule: Callable[[str], str]

    @property
    def most_connections(self) -> int | None:
        """How many connections may be open at once; None for no limit."""
        most: int | None = self.options.get("max_connections")
        sessions: int | None = self.options.get("dtls.max_sessions")
        return sessions if most is None else most if sessions is None else min(most, sessions)

    def option(self, name: str, default: Any = None) -> Any:
        """The value of an option."""
        return self.options.get(name, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Everything that is examined.

    Attributes:
        machine: The machine.
        python: The Python that runs this command.
        processes: Instances.
        listeners: Their listeners.
        now: Seconds since the epoch.
    """

    now: float
    machine: Machine = field(default_factory=Machine)
    processes: tuple[Process, ...] = ()
    listeners: tuple[Subject, ...] = ()

    def by_process(self) -> Iterator[tuple[Process, list[Subject]]]:
        """Each process with its listeners."""
        for process in self.processes:
            yield process, [each for each in self.listeners if each.process is process]
