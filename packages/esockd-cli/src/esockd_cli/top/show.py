"""Showing an instance or a recording: on a screen where there is one, otherwise as lines."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import anyio

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._instances import choose_reachable
from esockd_cli.top.lines import Lines
from esockd_cli.top.live import LiveFeed
from esockd_cli.top.recording import Recorder, Recording
from esockd_core import ControlClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from esockd_cli._output import Output
    from esockd_cli.top.dashboard import Dashboard
    from esockd_cli.top.frame import Only
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.session import Feed
    from esockd_cli.top.terminal import Terminal


def watch(
    output: Output,
    glyphs: Glyphs | None,
    only: Only | None,
    *,
    instance: str | None,
    interval_s: float,
    count: int | None,
    record: Path | None,
    until_eof: bool = False,
) -> int:
    """Watch a running instance.

    Args:
        output: How the command speaks.
        glyphs: What pictures are made of; None for lines.
        only: Which listeners are shown; None for all.
        instance: Its name; None for the only one that runs.
        interval_s: Seconds from one frame to the next.
        count: Lines to write; None for as many as come.
        record: Where to record to; None for nowhere.
        until_eof: Whether a screen ends when the standard input does.

    Raises:
        CommandError: No instance answers, or the recording cannot be written.
    """
    connect = partial(ControlClient, anyio.run(choose_reachable, instance), read_only=True)
    with ExitStack() as stack:
        recorder = None if record is None else stack.enter_context(closing(Recorder(record)))
        if glyphs is None:
            lines = Lines(output, only, interval_s=interval_s, count=count)
            status = _run(_write_lines, lines, partial(LiveFeed, connect, lines, recorder))
        else:
            from esockd_cli.top.dashboard import Dashboard  # noqa: PLC0415 - a script needs no screen

            dashboard = Dashboard(glyphs, interval_s=interval_s, only=only, recorder=recorder)
            feed = partial(LiveFeed, connect, dashboard, recorder)
            status = _show(output, glyphs, dashboard, feed, until_eof=until_eof)
        if recorder is not None and recorder.failure:
            raise CommandError(
                f"the recording {record} stopped: {recorder.failure}.", code="recording", status=ExitCode.FAILED
            )
        return status


def play(
    output: Output, glyphs: Glyphs | None, only: Only | None, file: Path, *, speed: float, count: int | None
) -> int:
    """Play a recording; as lines, without waiting.

    Args:
        output: How the command speaks.
        glyphs: What pictures are made of; None for lines.
        only: Which listeners are shown; None for all.
        file: The recording.
        speed: Seconds of it in one.
        count: Lines to write; None for all.

    Raises:
        CommandError: The file cannot be read, or is no recording.
    """
    with Recording(file) as recording:
        if glyphs is None:
            lines = Lines(output, only, count=count)
            for index in range(len(recording)):
                lines.show(recording.moment(index))
                if lines.is_over:
                    break
            return ExitCode.OK
        from esockd_cli.top.dashboard import Dashboard  # noqa: PLC0415
        from esockd_cli.top.player import Player  # noqa: PLC0415
        from esockd_cli.top.replay import ReplayFeed  # noqa: PLC0415

        player = Player(recording, speed)
        dashboard = Dashboard(glyphs, player, only=only)
        return _show(output, glyphs, dashboard, partial(ReplayFeed, player, dashboard))


def _show(
    output: Output, glyphs: Glyphs, dashboard: Dashboard, make_feed: Callable[[], Feed], *, until_eof: bool = False
) -> int:
    from esockd_cli.top.canvas import choose_sgr  # noqa: PLC0415
    from esockd_cli.top.session import Session  # noqa: PLC0415
    from esockd_cli.top.terminal import Terminal  # noqa: PLC0415

    async def run(terminal: Terminal) -> int:
        sgr = choose_sgr(os.environ, no_color=output.no_color)
        session = Session(dashboard, make_feed(), terminal, sgr, is_ascii=glyphs.is_ascii)
        return await session.run(lifeline=sys.stdin.fileno() if until_eof else None)

    with Terminal() as terminal:
        return _run(run, terminal)


async def _write_lines(lines: Lines, make_feed: Callable[[], Feed]) -> int:
    async with anyio.create_task_group() as tasks:

        def written() -> None:
            if lines.is_over:
                tasks.cancel_scope.cancel()

        await make_feed().run(written)
    return ExitCode.OK


def _run(function: Callable[..., Awaitable[int]], *arguments: object) -> int:
    try:
        return anyio.run(function, *arguments)
    except ExceptionGroup as group:  # the first task that failed ended the others
        raise _first(group) from None


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
