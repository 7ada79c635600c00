"""What the dashboard shows: an instance and its listeners at one moment, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from esockd_core import InstanceStatus, ListenerStatus, PlainValue, Stats, TopSource

if TYPE_CHECKING:
    from collections.abc import Callable


class ListenerKey(NamedTuple):
    """Which listener: several may have one name or, in several workers, one address."""

    name: str
    address: str
    worker: int | None = None


Only: TypeAlias = "Callable[[ListenerStatus], bool]"
"""Which listeners are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedClient(PlainValue):
    """One refused socket.

    Attributes:
        at: Seconds since the epoch.
        peer: Its address as text, "" where it was gone already.
        stage: The counter it was counted under, a value of `esockd_core.Refused`.
        reason: The deciding rule or limit in words.
    """

    at: float
    peer: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnection(PlainValue):
    """One open connection.

    Attributes:
        id: Unique in its process.
        peer: The client as text.
        opened_at: Seconds since the epoch at admission.
        state: What it does: "open", "draining", "closing" or "closed".
        via: The proxy it came by; None where it came by itself.
        tls: The version of TLS; None where its bytes travel in the clear.
        bytes_in: Bytes received so far.
        bytes_out: Bytes handed over for sending so far.
    """

    id: int
    peer: str
    opened_at: float
    state: str = "open"
    via: str | None = None
    tls: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFrame(PlainValue):
    """One listener at one moment.

    Sources, refusals and connections are there for listeners that were asked for them: see `Wanted`.

    Attributes:
        status: Its name, address and state.
        stats: Its counters.
        worker: The worker it is of; None for the sum of all workers, and without workers.
        sources: Who comes most often.
        refusals: The last refused sockets, oldest first.
        connections: Some of its connections, oldest first.
    """

    status: ListenerStatus
    stats: Stats
    worker: int | None = None
    sources: tuple[TopSource, ...] = ()
    refusals: tuple[RefusedClient, ...] = ()
    connections: tuple[OpenConnection, ...] = ()


def is_datagram(listener: ListenerFrame) -> bool:
    """Whether it serves datagrams."""
    return listener.status.address.startswith(("udp://", "dtls://"))


def key_of(listener: ListenerFrame) -> ListenerKey:
    """Which listener it is."""
    return ListenerKey(listener.status.name, listener.status.address, listener.worker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame(PlainValue):
    """An instance at one moment.

    Attributes:
        at: Seconds since the epoch.
        instance: The process.
        listeners: Its listeners in the order opened; with workers the sums first, then those of each worker.
    """

    at: float
    instance: InstanceStatus
    listeners: tuple[ListenerFrame, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(PlainValue):
    """The instance does not answer.

    Attributes:
        at: Seconds since the epoch.
        reason: Why, in words.
    """

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the screen needs beyond the counters of every listener.

    Attributes:
        listener: Whose sources and refusals are wanted; None for nobody's.
        connections: How many of that listener's connections are.
        network: Only connections of clients within it; None for all.
    """

    listener: ListenerKey | None = None
    connections: int = 0
    network: str | None = None
