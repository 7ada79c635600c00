"""A made-up instance that does the same every time."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, cast, get_origin, get_type_hints

from esockd_cli.top.frame import Frame, ListenerFrame, OpenConnection, RefusedClient
from esockd_core import Durations, InstanceStatus, ListenerState, ListenerStatus, Stats, TopSource

EPOCH = 1_764_288_000.0  # 2025-11-28 00:00:00 UTC


ZERO = {int: 0, float: 0.0, dict: {}, Durations: Durations((0,) * 17, 0.0)}


def make_stats(**changes: Any) -> Stats:
    """Counters that are zero but for some."""
    hints = get_type_hints(Stats)
    zero = {each.name: ZERO.get(get_origin(hints[each.name]) or hints[each.name]) for each in fields(Stats)}
    return Stats(**{**zero, **changes})


def make_instance(**changes: Any) -> InstanceStatus:
    """A process."""
    known = {"name": "edge", "pid": 7, "version": "0.1.0", "event_loop": "uvloop", "started_at": EPOCH, "uptime": 0.0}
    return InstanceStatus(**{**known, **changes})


def make_status(name: str, address: str, state: str = "running", addresses: tuple[str, ...] = ()) -> ListenerStatus:
    """Where a listener is."""
    return ListenerStatus(
        name=name,
        address=address,
        state=cast("ListenerState", state),
        addresses=addresses or (address,),
        port=None,
        opened_at=EPOCH,
        handler="app:handle",
    )


def spread(count: int, *parts: int) -> Durations:
    """So many durations, spread over the first buckets."""
    counts = [count * part // 100 for part in parts]
    return Durations((*counts, *[0] * (17 - len(counts))), count * 0.001)


@dataclass(frozen=True)
class Plan:
    """What one listener of the made-up instance does."""

    name: str
    address: str
    open: int
    most: int | None
    accepts: float
    rejects: float = 0.0
    bytes_each: int = 2_000
    failures: float = 0.0
    state: str = "running"
    bound: tuple[str, ...] = ()


PLANS = (
    Plan("mqtt", "*:1883", 812, 1_024, 120, 3.2, 9_000, bound=("0.0.0.0:1883", "[::]:1883")),
    Plan("mqtts", "tls://*:8883", 10_240, 10_240, 48, 17, 4_000, 0.8, bound=("0.0.0.0:8883", "[::]:8883")),
    Plan("redis-gateway", "[2001:db8:85a3::8a2e:370:7334]:6379", 96, 100, 6.5, 0, 64_000),
    Plan("admin", "unix:/run/edge/admin.sock", 3, None, 0.05, 0, 300),
    Plan("legacy", "10.20.30.40:7000", 17, 512, 0, 0, 0, state="suspended"),
)
DATAGRAM_PLANS = (
    Plan("dns", "udp://*:53", 640, 1_024, 310, 4.5, 700, bound=("udp://0.0.0.0:53", "udp://[::]:53")),
    Plan("coap", "dtls://*:5684", 75, 100, 2, 0.5, 9_000, 0.2),
    PLANS[0],
)
PEERS = ("203.0.113.7:50211", "[2001:db8:17::9]:41100", "198.51.100.23:60102", "192.0.2.180:33017")


@lru_cache
def make_connections(plan: Plan) -> tuple[OpenConnection, ...]:
    """The oldest of a listener's connections."""
    return tuple(
        OpenConnection(
            id=index + 1,
            peer=PEERS[index % 4],
            opened_at=EPOCH - 90_000 // (index + 1),
            state="draining" if index % 9 == 8 else "open",
            via="10.0.0.9:8443" if index % 3 == 0 else None,
            tls="TLSv1.3" if plan.address.startswith("tls") else None,
            bytes_in=(index * 7_919) % 90_000,
            bytes_out=(index * 104_729) % 9_000_000,
        )
        for index in range(min(plan.open, 60))
    )


def make_listener(plan: Plan, second: int, seed: int) -> ListenerFrame:
    """One listener so many seconds after the start."""
    # Two waves over a steady growth: busier and less so, and never backwards.
    busy = second + 6 * math.sin(second / 11 + seed) + 0.3 * math.sin(second * 1.3 + seed) + 7
    accepted, refused = int(plan.accepts * busy), int(plan.rejects * busy)
    failed = int(plan.failures * busy)
    stats = make_stats(
        accepted=accepted + plan.open,
        closed_forbidden=refused // 2,
        closed_max_limit=refused // 3,
        closed_rate_limited=refused - refused // 2 - refused // 3,
        closed_sys_limit=2 if plan.name == "mqtts" else 0,
        current_connections=plan.open,
        max_connections=plan.most,
        bytes_in=accepted * plan.bytes_each,
        bytes_out=accepted * plan.bytes_each * 3,
        shutdown_counts={
            name: count
            for name, count in {
                "normal": accepted * 9 // 10 - failed,
                "idle_timeout": accepted // 20,
                "reset": accepted // 40,
                "tls_failed": failed - failed // 4,
                "handshake_timeout": failed // 4,
            }.items()
            if count
        },
        entering=12 if plan.failures else 0,
        accept_queue_length=None if plan.address.startswith("unix:") else second % 3,
        accept_queue_limit=None if plan.address.startswith("unix:") else 1_024,
        loop_lag=0.000_3,
        loop_lags=spread(second * 2, 60, 30, 8, 2),
        accept_delays=spread(accepted, 50, 30, 15, 4, 1),
        handshakes=spread(accepted, 0, 0, 0, 0, 40, 50, 9, 1) if plan.failures else make_stats().handshakes,
    )
    if plan.address.startswith(("udp:", "dtls:")):
        stats = replace(
            stats,
            accept_queue_length=None,
            datagrams_in=accepted * 9,
            datagrams_out=accepted * 8,
            datagrams_dropped={
                "queue_full": accepted // 40, "kernel_overflow": accepted // 90, "packet_rate": 17, "unread": 3,
            },
            datagrams_unsent={"EPERM": accepted // 200},
        )  # fmt: skip
    return ListenerFrame(
        status=make_status(plan.name, plan.address, plan.state, plan.bound),
        stats=stats,
        sources=tuple(
            TopSource(source, accepted // part, plan.open // part)
            for source, part in (("203.0.113.7", 3), ("2001:db8:17::/64", 5), ("198.51.100.23", 8), ("192.0.2.180", 40))
            if accepted // part
        ),
        refusals=tuple(
            RefusedClient(
                at=EPOCH + second - back * 3,
                peer=PEERS[back % 4],
                stage=("closed_forbidden", "closed_max_limit", "closed_rate_limited")[back % 3],
                reason=("deny 203.0.113.0/24 (rule 2)", f"max_connections {plan.most}", "max_conn_rate 100/s")[
                    back % 3
                ],
            )
            for back in range(11, -1, -1)
        )
        if plan.rejects
        else (),
        connections=make_connections(plan),
    )


@lru_cache
def make_frame(second: int, plans: tuple[Plan, ...] = PLANS) -> Frame:
    """The instance so many seconds after the start."""
    return Frame(
        at=EPOCH + second,
        instance=make_instance(
            pid=812,
            uptime=274_320.0 + second,
            open_files=11_203,
            open_file_limit=65_536,
            memory_bytes=50_331_648 + second * 4_096,
            cpu_time=second * 0.12,
        ),
        listeners=tuple(make_listener(plan, second, seed) for seed, plan in enumerate(plans)),
    )
