"""The load processes, as the command drives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli.bench.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import Process, TaskGroup

    from esockd_cli.bench.plan import Plan

LONGEST_LINE: Final = 1 << 22
START_S: Final = 30.0  # for the processes to start
END_S: Final = 10.0  # to tell what they have counted
EXIT_S: Final = 5.0  # to close their connections


class Crew:
    """Load processes from their start to what they have counted.

    Args:
        plans: The part of each.
        tell: Hears now and then how many messages were answered, what went wrong, and how many connections are open.
    """

    def __init__(self, plans: Sequence[Plan], tell: Callable[[int, int, int], None]) -> None:
        self._plans = plans
        self._tell = tell
        self._progress: dict[int, dict[str, int]] = {}
        self._ready: set[int] = set()
        self._ended = 0
        self._connected = 0
        self._all_ready = anyio.Event()
        self._processes: list[Process] = []
        self.tally: Tally = Tally()
        self.reported: int = 0
        self.is_interrupted = False

    async def run(self) -> Tally:
        """Make the load, and return what all of them have counted.

        Raises:
            CommandError: A process has failed.
        """
        try:
            async with anyio.create_task_group() as group:
                for number, plan in enumerate(self._plans):
                    self._processes.append(await self._start(plan))
                    group.start_soon(self._listen, number, self._processes[-1], group)
                group.start_soon(self._drive, group)
        finally:
            with anyio.CancelScope(shield=True):
                for process in self._processes:
                    await _end(process)
        if self.reported < len(self._plans):
            raise CommandError(
                f"{len(self._plans) - self.reported} of {len(self._plans)} load processes have reported nothing.",
                code="load_process",
                status=ExitCode.FAILED,
            )
        return self.tally

    async def stop(self) -> None:
        """Let them end, and tell what they have."""
        self._all_ready.set()
        for process in self._processes:
            if process.stdin is not None:
                await process.stdin.aclose()

    async def _start(self, plan: Plan) -> Process:
        process = await anyio.open_process(
            [sys.executable, "-m", "esockd_cli.bench.process"],
            stderr=None,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        await self._write(process, json.dumps(plan.as_dict()))
        return process

    async def _write(self, process: Process, line: str) -> None:
        if process.stdin is not None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await process.stdin.send(line.encode() + b"\n")

    async def _drive(self, group: TaskGroup) -> None:
        plan = self._plans[0]
        paced = sum(each.connections for each in self._plans) / sum(each.rate or 0 for each in self._plans) if (
            plan.mode == "idle" and plan.rate
        ) else 0.0  # fmt: skip
        opening = -(-plan.connections // 64) * plan.timeout + paced
        with anyio.move_on_after(START_S + opening):
            await self._all_ready.wait()
        if plan.mode != "connect" and not self._connected:
            await self.stop()
        for process in self._processes:
            await self._write(process, "go")
        await anyio.sleep(plan.duration + plan.timeout + END_S)
        group.cancel_scope.cancel()  # one of them does not end

    async def _listen(self, number: int, process: Process, group: TaskGroup) -> None:
        assert process.stdout is not None  # noqa: S101 (open_process makes a pipe)
        lines = BufferedByteReceiveStream(process.stdout)
        with suppress(anyio.IncompleteRead, anyio.EndOfStream):
            while True:
                self._hear(number, json.loads(await lines.receive_until(b"\n", LONGEST_LINE)))
        self._note_ready(number)
        self._ended += 1
        if self._ended == len(self._plans):
            group.cancel_scope.cancel()

    def _hear(self, number: int, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._connected += message["ready"]
            self._note_ready(number)
        elif "progress" in message:
            self._progress[number] = message["progress"]
            progress = [*self._progress.values()]
            self._tell(*(sum(each[key] for each in progress) for key in ("completed", "errors", "connected")))
        else:
            self.reported += 1
            self.tally.merge(message["final"])

    def _note_ready(self, number: int) -> None:
        self._ready.add(number)
        if len(self._ready) == len(self._plans):
            self._all_ready.set()


async def _end(process: Process) -> None:
    """Let a process end, or end it. `Process.kill` may reap it before its own loop does, which then complains."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with anyio.move_on_after(EXIT_S):
        await process.wait()
    if process.returncode is None:
        os.kill(process.pid, signal.SIGKILL)
    await process.aclose()
