"""Waiting for the end of a rehearsal, and showing meanwhile how it goes."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

import anyio

from esockd_cli._rehearsals import progress_of

if TYPE_CHECKING:
    from esockd_cli._asking import Asked
    from esockd_cli._output import Output
    from esockd_core import RehearsalReport

INTERVAL_S: Final = 1.0
CLEAR_LINE: Final = "\r\x1b[K"


async def follow(asked: Asked, report: RehearsalReport, output: Output) -> tuple[RehearsalReport, bool]:
    """Wait until a rehearsal has ended, or until SIGINT or SIGTERM.

    Args:
        asked: The listener.
        report: The first report.
        output: Whether and how to show how it goes.

    Returns:
        Its last report, and whether it is still there: somebody else may have made it live or cancelled it.
    """
    is_there = True
    shows = sys.stderr.isatty() and not output.quiet and not output.as_json
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

            async def stop() -> None:
                async for _ in signals:
                    waiting.cancel()
                    return

            tasks.start_soon(stop)
            with anyio.CancelScope() as waiting:
                began = report.started_at
                while report.state == "running":
                    if shows:
                        sys.stderr.write(f"{CLEAR_LINE}{progress_of(report)}")
                        sys.stderr.flush()
                    await anyio.sleep(min(INTERVAL_S, report.remaining + 0.1))
                    now = await asked.control.get_rehearsal()
                    if now is None or now.started_at != began:
                        is_there = False
                        break
                    report = now
            if waiting.cancelled_caught:
                report = await asked.control.get_rehearsal() or report
            if shows:
                sys.stderr.write(CLEAR_LINE)
            tasks.cancel_scope.cancel()
    return report, is_there
