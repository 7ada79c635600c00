"""`esockd explain`, `esockd rejects` and `esockd top-sources`: who is let in, and who comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._completion import complete_listener
from esockd_cli._output import Output
from esockd_cli._parameters import LISTENER_HELP, Instance, Listener, speaks

if TYPE_CHECKING:
    from esockd_cli._asking import Asked
    from esockd_core import Explanation, Refusal, TopSource

EXAMPLES = {"explain": "echo 10.1.2.3", "rejects": "echo", "top-sources": "echo --most 3"}


@speaks
def explain_command(
    output: Output,
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LISTENER] ADDRESS",
            help=f"ADDRESS is a client's, or unix: for a client of a Unix socket. {LISTENER_HELP}",
            autocompletion=complete_listener,
        ),
    ],
    proxy: Annotated[
        str | None,
        typer.Option("--proxy", metavar="ADDRESS", help="The proxy it comes by, where PROXY headers are taken."),
    ] = None,
    instance: Instance = None,
) -> int:
    """Say what would happen to a client that came now, stage by stage.

    It spends no token and asks no hook. The status is 1 where the client would not be let in.
    """
    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    listener, (address,) = split_words(words, "ADDRESS")

    async def look(asked: Asked) -> tuple[Explanation, Asked]:
        return await asked.control.explain(address, proxy), asked

    explanation, asked = ask_listener(look, listener, instance)
    decided = explanation.decided_by
    if decided is not None:
        verb = "has to wait" if decided.verdict == "wait" else "is refused"
        verdict = f"{verb}: {decided.name}"
    else:
        verdict = "is let in" if explanation.is_admitted else "may be let in: the program's own code decides"
    lines = [f"{stage.name:17}  {stage.verdict:7}  {clean(stage.reason)}" for stage in explanation.stages]
    fields = {**explanation.as_dict(), **asked.fields, "client": address}
    output.data("\n".join([f"{address} {verdict}", *lines]), **fields)
    return ExitCode.FAILED if decided is not None else ExitCode.OK


@speaks
def rejects_command(
    output: Output,
    *,
    listener: Listener = None,
    most: Annotated[
        int | None, typer.Option("--most", metavar="N", min=1, max=256, help="Only the last ones, up to 256.")
    ] = None,
    instance: Instance = None,
) -> int:
    """List the last refused clients of a listener: when, who, by which stage and why."""
    import time  # noqa: PLC0415

    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import table  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli.top.live import describe_refusal  # noqa: PLC0415

    async def look(asked: Asked) -> tuple[tuple[Refusal, ...], Asked]:
        return await asked.control.get_refusals(), asked

    refusals, asked = ask_listener(look, listener, instance)
    refusals = refusals[-(most or len(refusals)) :]
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.at)),
            each.peer or "-",
            each.stage,
            each.reason,
        )
        for each in map(describe_refusal, refusals)
    ]
    output.data(
        "\n".join(table(("TIME", "CLIENT", "STAGE", "REASON"), rows)) if rows else None,
        **asked.fields,
        rejects=[each.as_dict() for each in refusals],
    )
    if not rows:
        output.note(f"{asked.name} has refused nobody")
    return ExitCode.OK


@speaks
def top_sources_command(
    output: Output,
    *,
    listener: Listener = None,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, max=512, help="How many, up to 512.")] = 10,
    instance: Instance = None,
) -> int:
    """List who comes most often to a listener, admitted or not; IPv6 clients by their /64."""
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import table  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    async def look(asked: Asked) -> tuple[tuple[TopSource, ...], Asked]:
        return await asked.control.get_top_sources(most), asked

    sources, asked = ask_listener(look, listener, instance)
    rows = [(each.attempts, each.open_connections, each.source) for each in sources]
    output.data(
        "\n".join(table(("CAME", "OPEN", "SOURCE"), rows)) if rows else None,
        **asked.fields,
        sources=[each.as_dict() for each in sources],
    )
    if not rows:
        output.note(f"nobody has come to {asked.name} yet")
    return ExitCode.OK
