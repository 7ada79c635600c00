"""One run of `esockd bench`: the load, a line of progress at a terminal, and the report."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from esockd_cli._errors import ExitCode, UsageError
from esockd_cli.bench.crew import Crew
from esockd_cli.bench.histogram import write_distribution
from esockd_cli.bench.report import fields_of, lines_of
from esockd_cli.bench.target import choose_host, find_target

if TYPE_CHECKING:
    from esockd_cli._output import Output
    from esockd_cli.bench.asking import Asked

INTERVAL_S = 1.0


def bench(asked: Asked, output: Output) -> int:
    """Make the load, and tell what came of it.

    Raises:
        UsageError: Options do not go together, or the target is another machine.
        CommandError: The target cannot be found, or a load process has failed.
    """
    target = find_target(asked.target, may_be_remote=asked.may_be_remote)
    asked.check(target.transport)
    if asked.histogram is not None:  # a minute later would be too late to say so
        try:
            Path(asked.histogram).touch()
        except OSError as error:
            raise UsageError(f'--histogram: cannot write "{asked.histogram}": {error.strerror}.') from error
    if find_spec("uvloop") is None:
        output.note(
            "uvloop is not installed: the load takes twice the processor time (pip install 'esockd-cli[uvloop]')"
        )
    plans = asked.plans(target, choose_host(target, asked.timeout))
    progress = Progress(output)
    crew = Crew(plans, progress.tell)
    anyio.run(_run, crew)
    progress.clear()
    if asked.histogram is not None:
        Path(asked.histogram).write_text(write_distribution(crew.tally.latencies), encoding="ascii")
    output.data("\n".join(lines_of(asked, plans, crew.tally)), **fields_of(asked, plans, crew.tally))
    if crew.is_interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if crew.tally.errors or not crew.tally.completed else ExitCode.OK


async def _run(crew: Crew) -> None:
    async with anyio.create_task_group() as group:
        await group.start(_obey, crew)
        await crew.run()
        group.cancel_scope.cancel()


async def _obey(crew: Crew, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """The first Ctrl-C ends the load with what it has, the second at once."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if crew.is_interrupted:
                raise KeyboardInterrupt
            crew.is_interrupted = True
            await crew.stop()


class Progress:
    """A line at a terminal that is written again and again.

    Args:
        output: Whether it is wanted.
    """

    def __init__(self, output: Output) -> None:
        has_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_wanted = has_terminal and not output.quiet and output.log_form == "auto"
        self._begun = self._told_at = time.monotonic()
        self._completed = 0

    def tell(self, completed: int, errors: int, connected: int) -> None:
        """Write it, once a second."""
        now = time.monotonic()
        if not self._is_wanted or now - self._told_at < INTERVAL_S:
            return
        rate = (completed - self._completed) / (now - self._told_at)
        self._told_at, self._completed = now, completed
        self._write(
            f"{now - self._begun:.0f} s: {completed} done, {rate:.0f}/s now, {connected} connected, {errors} errors"
        )

    def clear(self) -> None:
        """Take it away."""
        if self._is_wanted:
            self._write("")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
