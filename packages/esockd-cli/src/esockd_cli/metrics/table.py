"""Every metric: its name, and where its numbers are in a snapshot.

Labels have few values: names of listeners, transports, and words of this program. Peers, ports and texts of errors are
never among them, because a client could make a new time series with each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from esockd_core import OWN_REASONS, Durations, ListenerState, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_core import InstanceSnapshot, ListenerSnapshot

Sample: TypeAlias = tuple[tuple[str, ...], "float | Durations"]
"""The values of a metric's own labels, and the number."""

OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of each listener.

    Attributes:
        name: Its name; of a counter without the `_total` that is written.
        kind: What it is to Prometheus.
        text: Its help.
        read: Its samples of one listener; those with the same labels are added.
        labels: Its labels besides `listener` and `transport`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    read: Callable[[ListenerSnapshot], Iterator[Sample]]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgramMetric:
    """A metric of the program; see `Metric`."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    read: Callable[[InstanceSnapshot], Iterator[tuple[tuple[str, ...], float | None]]]
    labels: tuple[str, ...] = ()


def _field(name: str) -> Callable[[ListenerSnapshot], Iterator[Sample]]:
    """A field of the counters; nothing where it is unknown or has no bound."""

    def read(snapshot: ListenerSnapshot) -> Iterator[Sample]:
        if (value := getattr(snapshot.stats, name)) is not None:
            yield (), value

    return read


def _rejected(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    for stage in Refused:
        if stage is not Refused.EARLY:
            word = OTHER if stage is Refused.OTHER else stage.value.removeprefix("closed_")
            yield (word,), getattr(snapshot.stats, stage)


def _closed(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    yield ("normal",), 0
    for reason, count in snapshot.stats.shutdown_counts.items():
        yield (reason if reason in OWN_REASONS else OTHER,), count


def _handshake_failures(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    for reason, count in snapshot.stats.handshake_failures.items():
        yield (reason,), count


def _bytes(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    yield ("in",), snapshot.stats.bytes_in
    yield ("out",), snapshot.stats.bytes_out


def _datagrams(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    if _is_datagram(snapshot):
        yield ("in",), snapshot.stats.datagrams_in
        yield ("out",), snapshot.stats.datagrams_out


def _dropped(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    for cause, count in snapshot.stats.datagrams_dropped.items():
        yield (cause,), count


def _unsent(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    if _is_datagram(snapshot):
        yield (), sum(snapshot.stats.datagrams_unsent.values())


def _states(snapshot: ListenerSnapshot) -> Iterator[Sample]:
    for state in get_args(ListenerState):
        yield (state,), float(snapshot.status.state == state)


def _is_datagram(snapshot: ListenerSnapshot) -> bool:
    return transport_of(snapshot) in ("udp", "dtls")


def transport_of(snapshot: ListenerSnapshot) -> str:
    """What a listener speaks: tcp, tls, unix, udp or dtls."""
    scheme, has_scheme, _ = snapshot.status.address.partition("://")
    if has_scheme:
        return scheme if scheme in ("tls", "udp", "dtls") else "tcp"
    return "unix" if snapshot.status.address.startswith("unix:") else "tcp"


METRICS: Final = (
    Metric("esockd_accepts", "counter", "Clients that were admitted.", _field("accepted")),
    Metric(
        "esockd_connections_rejected",
        "counter",
        "Clients that were refused before they became connections, by stage of admission.",
        _rejected,
        ("reason",),
    ),
    Metric("esockd_early_closes", "counter", "Clients that had left when they were accepted.", _field("closed_early")),
    Metric(
        "esockd_accept_failures",
        "counter",
        "Calls of accept(2) that failed because descriptors or memory ran out.",
        _field("closed_sys_limit"),
    ),
    Metric(
        "esockd_connections_closed",
        "counter",
        "Ended connections, by reason; the reasons of handlers are other.",
        _closed,
        ("reason",),
    ),
    Metric("esockd_connections_active", "gauge", "Admitted connections that are open.", _field("current_connections")),
    Metric(
        "esockd_connections_max",
        "gauge",
        "The bound on open connections; missing where there is none.",
        _field("max_connections"),
    ),
    Metric(
        "esockd_connections_entering",
        "gauge",
        "Open connections that wait for a PROXY header or are in a TLS handshake.",
        _field("entering"),
    ),
    Metric(
        "esockd_transferred_bytes",
        "counter",
        "Bytes received from clients and handed over for sending.",
        _bytes,
        ("direction",),
    ),
    Metric(
        "esockd_handshake_failures",
        "counter",
        "Connections whose PROXY header or TLS handshake failed, by reason.",
        _handshake_failures,
        ("reason",),
    ),
    Metric(
        "esockd_handshake_duration_seconds",
        "histogram",
        "How long TLS handshakes took that succeeded.",
        _field("handshakes"),
    ),
    Metric(
        "esockd_connection_duration_seconds",
        "histogram",
        "How long ended connections had lasted, from their admission on.",
        _field("lifetimes"),
    ),
    Metric(
        "esockd_accept_delay_seconds",
        "histogram",
        "The time from admission until the handler ran.",
        _field("accept_delays"),
    ),
    Metric(
        "esockd_event_loop_lag_seconds", "histogram", "How late the event loop woke the listener.", _field("loop_lags")
    ),
    Metric(
        "esockd_accept_queue_length",
        "gauge",
        "Clients that wait in the kernel to be accepted.",
        _field("accept_queue_length"),
    ),
    Metric(
        "esockd_accept_queue_limit",
        "gauge",
        "How many may wait before the kernel turns clients away.",
        _field("accept_queue_limit"),
    ),
    Metric("esockd_listener_state", "gauge", "Listeners in each state.", _states, ("state",)),
    Metric("esockd_datagrams", "counter", "Datagrams that came and were sent.", _datagrams, ("direction",)),
    Metric(
        "esockd_datagrams_dropped", "counter", "Datagrams that reached no handler, by cause.", _dropped, ("reason",)
    ),
    Metric("esockd_datagrams_unsent", "counter", "Datagrams that the kernel refused to send.", _unsent),
)

PROGRAM_METRICS: Final = (
    ProgramMetric(
        "esockd_build_info",
        "gauge",
        "Always 1; the version and the event loop are in the labels.",
        lambda snapshot: iter([((snapshot.instance.version, snapshot.instance.event_loop), 1.0)]),
        ("version", "event_loop"),
    ),
    ProgramMetric(
        "esockd_workers",
        "gauge",
        "Worker processes by state; nothing where the program serves by itself.",
        lambda snapshot: (((each.state,), 1.0) for each in snapshot.workers),
        ("state",),
    ),
    ProgramMetric(
        "esockd_workers_replaced",
        "counter",
        "Workers that were replaced since the program began.",
        lambda snapshot: (((), float(each.replaced)) for each in snapshot.workers if each.state != "retiring"),
    ),
    ProgramMetric(
        "process_cpu_seconds",
        "counter",
        "Processor time of this process, without its workers.",
        lambda snapshot: iter([((), snapshot.instance.cpu_time)]),
    ),
    ProgramMetric(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory of this process, without its workers.",
        lambda snapshot: iter([((), snapshot.instance.memory_bytes)]),
    ),
    ProgramMetric(
        "process_open_fds",
        "gauge",
        "Descriptors in use by this process.",
        lambda snapshot: iter([((), snapshot.instance.open_files)]),
    ),
    ProgramMetric(
        "process_max_fds",
        "gauge",
        "The limit on descriptors of this process.",
        lambda snapshot: iter([((), snapshot.instance.open_file_limit)]),
    ),
    ProgramMetric(
        "process_start_time_seconds",
        "gauge",
        "When the program began to serve, in seconds since the epoch.",
        lambda snapshot: iter([((), snapshot.instance.started_at)]),
    ),
)
