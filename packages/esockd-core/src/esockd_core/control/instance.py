"""A whole program with listeners, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from esockd_core._plain import PlainValue
from esockd_core._stats.counters import Stats
from esockd_core.control.values import ListenerStatus

WorkerState: TypeAlias = Literal["starting", "running", "slow", "retiring", "ended"]
"""Where a worker process is in its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlGreeting(PlainValue):
    """The first message of a control socket to each client.

    Attributes:
        protocol: The version of the protocol.
        version: The version of esockd-core.
        name: The name of the program.
        pid: Its process id.
        started_at: Seconds since the epoch at which the socket was opened.
        read_only: Whether this client may change nothing.
        methods: The methods that can be called.
    """

    protocol: int
    version: str
    name: str
    pid: int
    started_at: float
    read_only: bool
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus(PlainValue):
    """A program at one moment.

    Attributes:
        name: The name of its control socket.
        pid: Its process id.
        version: The version of esockd-core.
        event_loop: "asyncio", "uvloop" or "trio".
        started_at: Seconds since the epoch at which its control socket was opened.
        uptime: Seconds since then, by a monotonic clock. Compute rates with this one.
        workers: Worker processes; 0 if the program serves by itself.
        open_files: Descriptors in use; None if unknown.
        open_file_limit: The soft limit on them; None if unknown or if there is none.
        memory_bytes: Resident memory; None if unknown.
        cpu_time: Processor time used since the program began, in seconds.
    """

    name: str
    pid: int
    version: str
    event_loop: str
    started_at: float
    uptime: float
    workers: int = 0
    open_files: int | None = None
    open_file_limit: int | None = None
    memory_bytes: int | None = None
    cpu_time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSnapshot(PlainValue):
    """A listener and its counters at one moment."""

    status: ListenerStatus
    stats: Stats


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus(PlainValue):
    """A worker process of a program at one moment.

    Attributes:
        number: The number of the worker, from 0. The process that takes the place of another has the same.
        pid: Its process id.
        state: "slow" if it does not answer its parent, "retiring" while it finishes its last connections.
        replaced: How often this worker was replaced so far.
        uptime: Seconds since its process was started.
        listeners: Its part of each listener, with the counters of this process alone, at most a second old.
        open_files: Descriptors in use; None if unknown.
        memory_bytes: Resident memory; None if unknown.
        cpu_time: Processor time used since its process was started, in seconds.
    """

    number: int
    pid: int
    state: WorkerState
    replaced: int
    uptime: float
    listeners: tuple[ListenerSnapshot, ...]
    open_files: int | None = None
    memory_bytes: int | None = None
    cpu_time: float = 0.0

    @property
    def current_connections(self) -> int:
        """The connections that it has open, over all listeners."""
        return sum(each.stats.current_connections for each in self.listeners)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSnapshot(PlainValue):
    """A program and its listeners at one moment.

    Attributes:
        at: Seconds since the epoch.
        instance: The program.
        listeners: In the order in which they were opened.
        workers: Its worker processes; none if it serves by itself.
    """

    at: float
    instance: InstanceStatus
    listeners: tuple[ListenerSnapshot, ...]
    workers: tuple[WorkerStatus, ...] = ()
