"""`esockd stats`: the counters of an instance, once or every few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import Instance, Listener, speaks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_core import (
        ControlClient,
        InstanceSnapshot,
        ListenerSnapshot,
        ListenerStatus,
        Stats,
        WorkerStatus,
    )

EXAMPLES = {"stats": "echo -n 5"}
HEAD = ("LISTENER", "ADDRESS", "STATE", "CONNECTIONS", "ACCEPTED", "REFUSED", "IN", "OUT", "QUEUE", "HS FAILS")
WORKER_HEAD = ("WORKER", "PID", "STATE", "CONNECTIONS", "ACCEPTED", "REFUSED", "MEMORY", "CPU", "UP", "REPLACED")

DATAGRAM_HEAD = ("DATAGRAMS IN", "DATAGRAMS OUT", "DROPPED")


@speaks
def stats_command(
    output: Output,
    *,
    listener: Listener = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the live dashboard, as esockd top does.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval", "-n", metavar="SECONDS", min=0.1, max=3600, help="Write a line with rates every so often."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", metavar="N", min=1, help="Lines to write, one each second or -n.")
    ] = None,
    instance: Instance = None,
) -> int:
    """Show the counters of the listeners of an instance.

    With a LISTENER they are shown one by one, with -n or -c as lines of rates, and with -w as a live dashboard where
    the output is a terminal.
    """
    if watch or interval is not None or count is not None:
        return _watch(output, listener, instance, interval_s=interval or 1.0, count=count, on_screen=watch)

    from esockd_cli._asking import ask  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._instances import choose_listener  # noqa: PLC0415

    async def look(client: ControlClient) -> InstanceSnapshot:
        async with client.watch(3600) as snapshots:
            return await anext(snapshots)

    snapshot = ask(look, instance, listener=listener)
    shown: Sequence[ListenerSnapshot] = snapshot.listeners
    if listener is not None:
        chosen = choose_listener([each.status for each in shown], listener, snapshot.instance.name)
        shown = [each for each in shown if each.status == chosen]
    output.data(
        _details(shown[0], snapshot.at) if listener is not None else _overview(shown) + _of_workers(snapshot.workers),
        at=snapshot.at,
        instance=snapshot.instance.as_dict(),
        listeners=[{**each.status.as_dict(), "stats": each.stats.as_dict()} for each in shown],
        workers=[worker.as_dict() for worker in snapshot.workers],
    )
    return ExitCode.OK


def _watch(
    output: Output, listener: str | None, instance: str | None, *, interval_s: float, count: int | None, on_screen: bool
) -> int:
    import os  # noqa: PLC0415

    from esockd_cli.top import show  # noqa: PLC0415
    from esockd_cli.top.command import has_screen, only_named  # noqa: PLC0415
    from esockd_cli.top.glyphs import choose_glyphs  # noqa: PLC0415

    glyphs = choose_glyphs(os.environ) if on_screen and has_screen(output) else None
    only = None if listener is None else only_named(listener)
    return show.watch(output, glyphs, only, instance=instance, interval_s=interval_s, count=count, record=None)


def _overview(listeners: Sequence[ListenerSnapshot]) -> str:
    from esockd_cli._columns import table  # noqa: PLC0415
    from esockd_cli._summary import format_bytes  # noqa: PLC0415

    rows: list[tuple[object, ...]] = []
    has_datagrams = any(_is_datagram(each.status) for each in listeners)
    for each in listeners:
        stats, status = each.stats, each.status
        rows.append(
            (
                status.name,
                status.addresses[0] if len(status.addresses) == 1 else status.address,
                status.state,
                f"{stats.current_connections}/{_bound(stats.max_connections)}",
                stats.accepted,
                stats.refused,
                format_bytes(stats.bytes_in),
                format_bytes(stats.bytes_out),
                _queue(stats.accept_queue_length, stats.accept_queue_limit),
                sum(stats.handshake_failures.values()),
            )
        )
        if has_datagrams:
            rows[-1] += _datagrams(stats) if _is_datagram(status) else ("-", "-", "-")
    return "\n".join(table(HEAD + DATAGRAM_HEAD if has_datagrams else HEAD, rows))


def _datagrams(stats: Stats) -> tuple[object, ...]:
    return stats.datagrams_in, stats.datagrams_out, sum(stats.datagrams_dropped.values())


def _is_datagram(status: ListenerStatus) -> bool:
    return status.address.startswith(("udp://", "dtls://"))


def _of_workers(workers: Sequence[WorkerStatus]) -> str:
    from esockd_cli._columns import table  # noqa: PLC0415
    from esockd_cli._summary import format_bytes  # noqa: PLC0415
    from esockd_cli.top.text import format_age  # noqa: PLC0415

    rows = [
        (
            each.number,
            each.pid,
            each.state,
            each.current_connections,
            sum(listener.stats.accepted for listener in each.listeners),
            sum(listener.stats.refused for listener in each.listeners),
            "-" if each.memory_bytes is None else format_bytes(each.memory_bytes),
            f"{each.cpu_time:.1f} s",
            format_age(each.uptime),
            each.replaced,
        )
        for each in workers
    ]
    return "\n\n" + "\n".join(table(WORKER_HEAD, rows)) if rows else ""


def _details(listener: ListenerSnapshot, at: float) -> str:
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._summary import by_name, format_bytes  # noqa: PLC0415
    from esockd_cli.top.text import format_age, format_duration  # noqa: PLC0415
    from esockd_core import Refused  # noqa: PLC0415

    stats, status = listener.stats, listener.status
    age = "" if status.opened_at is None else f" for {format_age(at - status.opened_at)}"
    refused = {str(stage): count for stage in Refused if (count := getattr(stats, stage))}
    left_early = refused.pop(Refused.EARLY, 0)
    ended = dict(sorted(stats.shutdown_counts.items(), key=lambda item: (-item[1], item[0])))
    upgrading = f", {stats.entering} of them not yet through their PROXY header or handshake" if stats.entering else ""
    dropped = dict(sorted(stats.datagrams_dropped.items(), key=lambda item: (-item[1], item[0])))
    unsent = stats.datagrams_unsent
    rows = {
        "listener": f"{status.name}, {status.state}{age}",
        "addresses": ", ".join(status.addresses) or status.address,
        "handler": status.handler,
        "connections": f"{stats.current_connections} of {_bound(stats.max_connections)}{upgrading}",
        "accepted": str(stats.accepted),
        "refused": f"{stats.refused}{by_name(refused)}",
        "left early": str(left_early),
        "ended": f"{sum(ended.values())}{by_name(ended)}",
        "failed accepts": f"{stats.closed_sys_limit} (descriptors or memory)" if stats.closed_sys_limit else "0",
        "bytes in": format_bytes(stats.bytes_in),
        "bytes out": format_bytes(stats.bytes_out),
        "accept queue": _queue(stats.accept_queue_length, stats.accept_queue_limit, " of "),
        "loop lag": format_duration(stats.loop_lag),
    }
    if _is_datagram(status):
        for name in ("left early", "failed accepts", "accept queue"):
            del rows[name]
        rows |= {
            "datagrams in": f"{stats.datagrams_in}, of which {stats.datagrams_waiting} wait for their handlers",
            "delivered": str(stats.datagrams_delivered),
            "answered": f"{stats.datagrams_answered} without a connection",
            "dropped": f"{sum(dropped.values())}{by_name(dropped)}",
            "datagrams out": f"{stats.datagrams_out}, and {sum(unsent.values())} not sent{by_name(unsent)}",
        }
    return "\n".join(f"{name:15}{clean(text)}" for name, text in rows.items())


def _bound(most: int | None) -> str:
    return "any" if most is None else str(most)


def _queue(length: int | None, limit: int | None, between: str = "/") -> str:
    return "-" if length is None else f"{length}{between}{'?' if limit is None else limit}"
