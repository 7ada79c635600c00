"""The text that Prometheus reads, read by a parser of Prometheus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cli.top.scene import make_instance, make_stats, make_status

from esockd_cli.metrics.exporter import FRESH_S, Exporter
from esockd_cli.metrics.table import METRICS, PROGRAM_METRICS
from esockd_cli.metrics.text import write_text
from esockd_core import (
    OWN_REASONS,
    Durations,
    InstanceSnapshot,
    ListenerSnapshot,
    Refused,
    Stats,
    WorkerStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esockd_core import ListenerStatus

# What dashboards and alert rules of others are written for.
NAMES = {
    "esockd_accepts_total",
    "esockd_connections_rejected_total",
    "esockd_connections_closed_total",
    "esockd_connections_active",
    "esockd_connections_max",
    "esockd_transferred_bytes_total",
    "esockd_handshake_failures_total",
    "esockd_handshake_duration_seconds_bucket",
    "esockd_connection_duration_seconds_bucket",
    "esockd_accept_delay_seconds_bucket",
    "esockd_event_loop_lag_seconds_bucket",
    "esockd_accept_queue_length",
    "esockd_listener_state",
    "esockd_build_info",
}


def listener(name: str, address: str, state: str = "running", **counters: Any) -> ListenerSnapshot:
    """A listener with counters that are zero but for some."""
    return ListenerSnapshot(status=make_status(name, address, state), stats=make_stats(**counters))


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample by its name and labels; there is no second one."""
    found = [each for family in text_string_to_metric_families(text) for each in family.samples]
    by_labels = {(each.name, frozenset(each.labels.items())): each.value for each in found}
    assert len(by_labels) == len(found)
    return by_labels


def render(*listeners: ListenerSnapshot, workers: Iterable[WorkerStatus] = (), **instance: Any) -> dict[Any, float]:
    snapshot = InstanceSnapshot(at=0.0, instance=make_instance(**instance), listeners=listeners, workers=tuple(workers))
    return samples(anyio.run(write_text, snapshot).decode())


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_every_promised_metric_is_there() -> None:
    found = render(
        listener("edge", "tls://*:443", shutdown_counts={"tls_failed": 1}, max_connections=5, accept_queue_length=0)
    )
    assert {name for name, _ in found} >= NAMES


def test_each_counter_has_its_number_and_its_labels() -> None:
    found = render(
        listener(
            "edge",
            "tls://*:443",
            accepted=9,
            closed_forbidden=2,
            closed_other_reasons=3,
            current_connections=4,
            max_connections=10,
            bytes_in=500,
            bytes_out=700,
            shutdown_counts={"normal": 3, "tls_failed": 2},
        ),
        listener(
            "dns", "udp://*:53", datagrams_in=8, datagrams_dropped={"forbidden": 1}, datagrams_unsent={"EPERM": 2}
        ),
    )
    edge = {"listener": "edge", "transport": "tls"}
    dns = {"listener": "dns", "transport": "udp"}
    assert value(found, "esockd_accepts_total", **edge) == 9
    assert value(found, "esockd_connections_rejected_total", **edge, reason="forbidden") == 2
    assert value(found, "esockd_connections_rejected_total", **edge, reason="other") == 3
    assert value(found, "esockd_connections_active", **edge) == 4
    assert value(found, "esockd_connections_max", **edge) == 10
    assert value(found, "esockd_transferred_bytes_total", **edge, direction="in") == 500
    assert value(found, "esockd_transferred_bytes_total", **edge, direction="out") == 700
    assert value(found, "esockd_connections_closed_total", **edge, reason="normal") == 3
    assert value(found, "esockd_handshake_failures_total", **edge, reason="tls_failed") == 2
    assert value(found, "esockd_listener_state", **edge, state="running") == 1
    assert value(found, "esockd_datagrams_total", **dns, direction="in") == 8
    assert value(found, "esockd_datagrams_dropped_total", **dns, reason="forbidden") == 1
    assert value(found, "esockd_datagrams_unsent_total", **dns) == 2
    assert ("esockd_connections_max", frozenset(dns.items())) not in found


def test_a_histogram_counts_what_is_up_to_each_bound() -> None:
    found = render(listener("edge", "5000", lifetimes=Durations((2, 3, 1), 70.5, (1.0, 60.0))))
    edge = {"listener": "edge", "transport": "tcp"}
    name = "esockd_connection_duration_seconds"
    assert [value(found, f"{name}_bucket", **edge, le=le) for le in ("1.0", "60.0", "+Inf")] == [2, 5, 6]
    assert (value(found, f"{name}_count", **edge), value(found, f"{name}_sum", **edge)) == (6, 70.5)


def test_listeners_of_one_name_are_one_series() -> None:
    found = render(
        listener("echo", "127.0.0.1:5000", accepted=2, lifetimes=Durations((1, 0), 1.0, (1.0,))),
        listener("echo", "127.0.0.1:5001", "suspended", accepted=3, lifetimes=Durations((1, 1), 9.0, (1.0,))),
        listener("echo", "tls://127.0.0.1:5002", accepted=4),
    )
    tcp = {"listener": "echo", "transport": "tcp"}
    assert value(found, "esockd_accepts_total", **tcp) == 5
    assert value(found, "esockd_accepts_total", listener="echo", transport="tls") == 4
    assert value(found, "esockd_listener_state", **tcp, state="running") == 1
    assert value(found, "esockd_listener_state", **tcp, state="suspended") == 1
    assert value(found, "esockd_connection_duration_seconds_count", **tcp) == 3


def test_what_a_handler_or_a_client_says_never_becomes_a_label() -> None:
    """Not even the reasons that a handler closes with, which may have addresses in them."""
    counts = {"banned 192.0.2.7": 2, "quota": 3, "reset": 1}
    found = render(listener("edge", "*:5000", shutdown_counts=counts))
    labels = {label: {dict(each).get(label) for _, each in found} - {None} for label in ("reason", "listener")}
    assert labels["listener"] == {"edge"}
    assert labels["reason"] <= {*OWN_REASONS, "other", *(stage.removeprefix("closed_") for stage in Refused)}
    name = "esockd_connections_closed_total"
    assert value(found, name, listener="edge", transport="tcp", reason="other") == 5


@pytest.mark.parametrize(
    ("address", "transport"),
    [
        ("127.0.0.1:5000", "tcp"),
        ("[::1]:5000", "tcp"),
        ("tls://*:443", "tls"),
        ("unix:/run/edge.sock", "unix"),
        ("tls://unix:/run/edge.sock", "tls"),
        ("udp://*:53", "udp"),
        ("dtls://*:5684", "dtls"),
        ("systemd:edge", "tcp"),
        ("fd:3", "tcp"),
    ],
)
def test_the_transport_is_that_of_the_address(address: str, transport: str) -> None:
    assert value(render(listener("edge", address)), "esockd_accepts_total", listener="edge", transport=transport) == 0


def test_a_name_with_quotes_and_line_ends_is_escaped() -> None:
    name = 'a"b\\c\nd'
    assert (
        value(render(listener(name, "5000", accepted=1)), "esockd_accepts_total", listener=name, transport="tcp") == 1
    )


def test_workers_are_counted_by_state() -> None:
    def worker(number: int, state: Any, replaced: int) -> WorkerStatus:
        return WorkerStatus(number=number, pid=1, state=state, replaced=replaced, uptime=1.0, listeners=())

    found = render(workers=[worker(0, "running", 2), worker(1, "running", 1), worker(1, "retiring", 0)])
    assert value(found, "esockd_workers", state="running") == 2
    assert value(found, "esockd_workers", state="retiring") == 1
    assert value(found, "esockd_workers_replaced_total") == 3


def test_no_two_metrics_have_one_name_and_each_has_a_help_text() -> None:
    metrics = (*METRICS, *PROGRAM_METRICS)
    assert len({metric.name for metric in metrics}) == len(metrics)
    assert all(metric.text.endswith(".") for metric in metrics)


class Source:
    """Listeners as a program has them."""

    def __init__(self, *open_ones: ListenerSnapshot) -> None:
        self.open = list(open_ones)

    def listeners(self) -> list[Any]:
        return [Control(each) for each in self.open]


class Control:
    """What the exporter asks a listener."""

    def __init__(self, snapshot: ListenerSnapshot) -> None:
        self._snapshot = snapshot

    async def get_status(self) -> ListenerStatus:
        return self._snapshot.status

    async def get_stats(self) -> Stats:
        return self._snapshot.stats


class Clock:
    """Time that goes on when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.anyio
async def test_a_counter_does_not_run_backwards_when_one_of_several_listeners_is_closed() -> None:
    """Prometheus would take it for a new start, and what the others have counted for new."""
    first, second = listener("echo", "5000", accepted=5), listener("echo", "5001", accepted=7, current_connections=2)
    source, clock = Source(first, second), Clock()
    exporter = Exporter(source, clock)

    async def look() -> dict[Any, float]:
        clock.now += 2 * FRESH_S
        return samples((await exporter.text()).decode())

    echo = {"listener": "echo", "transport": "tcp"}
    assert value(await look(), "esockd_accepts_total", **echo) == 12
    source.open = [first]
    found = await look()
    assert value(found, "esockd_accepts_total", **echo) == 12
    assert value(found, "esockd_connections_active", **echo) == 0
    assert value(found, "esockd_listener_state", **echo, state="closed") == 1
    source.open = [first, replace(second, stats=replace(second.stats, accepted=8))]
    assert value(await look(), "esockd_accepts_total", **echo) == 13
    source.open = []
    assert ("esockd_accepts_total", frozenset(echo.items())) not in await look()


@pytest.mark.anyio
async def test_one_text_serves_all_who_ask_within_a_moment() -> None:
    source, clock = Source(listener("echo", "5000", accepted=5)), Clock()
    exporter = Exporter(source, clock)
    text = await exporter.text()
    source.open = [listener("echo", "5000", accepted=6)]
    assert await exporter.text() == text
    clock.now += 2 * FRESH_S
    assert await exporter.text() != text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("states", "why"),
    [
        (["running"], None),
        (["running", "draining"], None),
        (["running", "suspended"], "suspended: 1"),
        (["draining", "draining"], "draining"),
        ([], "no listener is open"),
        (["new"], "no listener is open"),
    ],
)
async def test_a_program_is_ready_while_a_listener_accepts_and_none_is_suspended(
    states: list[str], why: str | None
) -> None:
    source = Source(*(listener(str(number), str(5000 + number), state) for number, state in enumerate(states)))
    assert await Exporter(source).not_ready() == why
