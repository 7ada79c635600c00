"""`esockd top`: the live dashboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._errors import UsageError
from esockd_cli._output import Output
from esockd_cli._parameters import OUTPUT_PANEL, Instance, Listener, speaks

if TYPE_CHECKING:
    from esockd_cli.top.frame import Only

RECORDINGS = "Recordings"
EXAMPLES = {"top": "mqtt --record incident.jsonl"}


@speaks
def top_command(
    output: Output,
    *,
    listener: Listener = None,
    interval: Annotated[
        float, typer.Option("--interval", "-n", metavar="SECONDS", min=0.1, max=3600, help="Between two frames.")
    ] = 1.0,
    count: Annotated[
        int | None,
        typer.Option("--count", "-c", metavar="N", min=1, help="Lines to write, where the output is no terminal."),
    ] = None,
    instance: Instance = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", help="Write all that is seen to a new file.", rich_help_panel=RECORDINGS
        ),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="FILE", help="Play a recording.", rich_help_panel=RECORDINGS)
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            "--speed",
            metavar="N",
            min=0.01,
            max=1000,
            help="Seconds of the recording in one.",
            rich_help_panel=RECORDINGS,
        ),
    ] = 1.0,
    ascii_only: Annotated[
        bool,
        typer.Option("--ascii", help="No block characters, for terminals without.", rich_help_panel=OUTPUT_PANEL),
    ] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when the standard input does.", hidden=True)
    ] = False,
) -> int:
    """Watch the listeners of a running instance; ? tells the keys.

    Where the output is no terminal, each interval is one line.
    A recording is written by --record incident.jsonl, and played by --replay incident.jsonl.
    """
    # What the work needs is imported now and not above: --help does without.
    from esockd_cli.top import show  # noqa: PLC0415
    from esockd_cli.top.glyphs import choose_glyphs  # noqa: PLC0415

    glyphs = choose_glyphs(os.environ, ascii_only=ascii_only) if has_screen(output) else None
    only = None if listener is None else only_named(listener)
    if replay is None:
        return show.watch(
            output,
            glyphs,
            only,
            instance=instance,
            interval_s=interval,
            count=count,
            record=record,
            until_eof=until_eof,
        )
    for option, value in (("--instance", instance), ("--record", record)):
        if value is not None:
            raise UsageError(f"{option} and --replay exclude each other.")
    return show.play(output, glyphs, only, replay, speed=speed, count=count)


def has_screen(output: Output) -> bool:
    """Whether what is written goes to a terminal that can show a picture."""
    return not output.as_json and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def only_named(text: str) -> Only:
    """The listeners that `NAME` or `NAME@ADDRESS` names."""
    from esockd_cli._instances import is_named  # noqa: PLC0415

    return lambda status: is_named(status, text)
