"""`esockd bench`: load on a server, and how long its answers take."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import speaks

EXAMPLES = {"bench": "5000 --rate 10000/s --duration 30s"}


@speaks
def bench_command(
    output: Output,
    *,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Where a server listens: 5000, localhost:5000, tls://, udp:// or dtls:// before it, or unix:/path.",
        ),
    ],
    mode: Annotated[
        Literal["echo", "connect", "idle"],
        typer.Option(
            "--mode",
            help="echo sends messages on connections that stay, connect opens one for each message, idle holds them.",
        ),
    ] = "echo",
    connections: Annotated[
        int, typer.Option("--connections", "-c", metavar="N", min=1, max=1_000_000, help="How many are open at once.")
    ] = 64,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            "-r",
            metavar="RATE",
            help="Messages, or in the other modes connections, that are due in a time, such as 1000/s, whether or not "
            "those before are answered. The next one follows each answer when not given.",
        ),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", "-d", metavar="TIME", help="How long it lasts; 10s, or 1m with --requests."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", metavar="N", min=1, help="At most so many messages.")
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            "--size", "-s", metavar="BYTES", min=0, max=16 << 20, help="Of a message; 0 for none, to connect."
        ),
    ] = 64,
    timeout: Annotated[
        str, typer.Option("--timeout", "-t", metavar="TIME", help="For connecting, and for each answer.")
    ] = "5s",
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", "-p", metavar="N", min=1, max=256, help="Processes that make the load; 2 or more by default."
        ),
    ] = None,
    histogram: Annotated[
        str | None,
        typer.Option(
            "--histogram", metavar="FILE", help="Write the distribution of latencies, for HdrHistogram's plotter."
        ),
    ] = None,
    yes_remote: Annotated[bool, typer.Option("--yes-remote", help="The target may be another machine.")] = False,
) -> int:
    """Put load on an echo server, compare every byte that comes back, and say how long the answers took.

    With --rate, a latency counts from the moment at which the message was due. The status is 1 where anything was lost
    or wrong.
    """
    from esockd_cli._durations import parse_duration, parse_rate  # noqa: PLC0415
    from esockd_cli.bench.asking import Asked  # noqa: PLC0415
    from esockd_cli.bench.running import bench  # noqa: PLC0415

    asked = Asked(
        target=target,
        mode=mode,
        connections=connections,
        rate=None if rate is None else parse_rate(rate),
        duration=parse_duration(duration or ("10s" if requests is None else "1m"), "--duration", "1d"),
        requests=requests,
        size=size,
        timeout=parse_duration(timeout, "--timeout", "1h"),
        processes=processes,
        histogram=histogram,
        may_be_remote=yes_remote,
    )
    return bench(asked, output)
