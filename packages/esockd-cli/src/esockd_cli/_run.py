"""Runs listeners until a signal or their own failure ends them, and never longer than it promised."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import anyio

from esockd_cli._errors import CommandError, ExitCode, UsageError
from esockd_cli._signals import StopRequests
from esockd_cli._summary import summarize
from esockd_core import AddressInUse, AlreadyOpen, InvalidOption, Server, SocketError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cli._output import Output
    from esockd_core import Address, Handler, Listener, ListenerOptions

Loop = Literal["auto", "asyncio", "uvloop", "trio"]

# What comes after a listener's own shutdown_timeout: a second for cancelled handlers, another for those whose socket
# was closed under them, and time for the loop to tell many of them.
FORCE_AFTER_S: Final = 4.0
SUMMARY_S: Final = 1.0  # for a summary that another thread is writing, perhaps to somebody who does not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One listener to open."""

    name: str
    address: Address
    handler: Handler
    options: ListenerOptions


def choose_loop(loop: Loop) -> tuple[str, str, dict[str, Any]]:
    """What `anyio.run` is to be given for an event loop.

    Returns:
        The loop's name, the backend's, and the backend's options.

    Raises:
        CommandError: It is not installed.
    """
    if loop == "auto":
        loop = "uvloop" if find_spec("uvloop") else "asyncio"
    if loop != "asyncio" and not find_spec(loop):
        raise CommandError(
            f"--loop {loop}: {loop} is not installed.",
            code="not_installed",
            status=ExitCode.CANNOT_START,
            hint=f"Install it: pip install 'esockd-cli[{loop}]'",
        )
    return (loop, "trio", {}) if loop == "trio" else (loop, "asyncio", {"use_uvloop": loop == "uvloop"})


def run(openings: Sequence[Opening], loop: Loop, output: Output) -> ExitCode:
    """Open listeners and serve them until they are stopped.

    Raises:
        UsageError: An option does not apply to an address.
        CommandError: An address cannot be opened.
    """
    loop_name, backend, backend_options = choose_loop(loop)
    return Run(openings, loop_name, output).run(backend, backend_options)


class Run:
    """One run of listeners: from their opening to the summary."""

    def __init__(self, openings: Sequence[Opening], loop_name: str, output: Output) -> None:
        self._openings = openings
        self._loop_name = loop_name
        self._output = output
        self._listeners: list[Listener] = []
        self._started_at = time.monotonic()
        self._summing_up = threading.Lock()
        self._is_summed_up = False
        self._force_timer: threading.Timer | None = None
        self._stop = StopRequests(self._stop_requested)

    def run(self, backend: str, backend_options: dict[str, Any]) -> ExitCode:
        """Serve until stopped; see `run`."""
        with self._stop:
            return anyio.run(self._serve, backend=backend, backend_options=backend_options)

    async def _serve(self) -> ExitCode:
        failure: Exception | None = None
        async with Server() as server:
            try:
                for opening in self._openings:
                    self._listeners.append(
                        await server.open(opening.name, opening.address, opening.handler, opening.options)
                    )
            except (SocketError, InvalidOption, AlreadyOpen) as error:
                failure = error
            else:
                self._announce()
                await self._serve_until_closed()
        if failure is not None:
            raise _cannot_start(failure) from failure
        failed = self._stop.count == 0
        self._sum_up()
        if any(listener.stats().shutdown_counts.get("stuck") for listener in self._listeners):
            self._output.note("a handler does not end; leaving without it")
            _leave(ExitCode.FAILED)
        return ExitCode.FAILED if failed else ExitCode.OK

    async def _serve_until_closed(self) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._obey)
            for listener in self._listeners:
                await listener.wait_closed()
            task_group.cancel_scope.cancel()

    async def _obey(self) -> None:
        """Close the listeners at the first request to stop, and kill them at the second."""
        async with anyio.create_task_group() as task_group:
            await self._stop.wait(1)
            self._tell_stop()
            for listener in self._listeners:
                task_group.start_soon(listener.close)
            await self._stop.wait(2)
            for listener in self._listeners:
                task_group.start_soon(listener.kill)

    def _announce(self) -> None:
        for listener in self._listeners:
            for address in listener.addresses:
                self._output.data(
                    f"{listener.name} listening on {address}",
                    event="listening",
                    listener=listener.name,
                    address=address,
                    port=listener.port,
                    loop=self._loop_name,
                    pid=os.getpid(),
                )
        loopback = [listener for listener in self._listeners if listener.address.kind == "loopback"]
        for listener in loopback:
            to_all = replace(listener.address, kind="everywhere", port=listener.port)
            self._output.note(f"port {listener.port} is open to this machine only (loopback); {to_all} opens it to all")
        self._output.note(f"serving on {self._loop_name}; Ctrl-C stops")

    def _tell_stop(self) -> None:
        connections = sum(len(listener.connections) for listener in self._listeners)
        timeout_s = self._openings[0].options.shutdown_timeout
        patience = "as long as they take" if timeout_s is None else f"up to {timeout_s:g} s"
        self._output.data(None, event="stopping", signal=self._stop.last, connections=connections)
        self._output.note(
            f"{self._stop.last}: closing"
            + (
                f"; {patience} for {connections} connection{'s'[: connections > 1]}; again to hurry"
                if connections
                else ""
            )
        )

    def _sum_up(self) -> None:
        if not self._summing_up.acquire(timeout=SUMMARY_S):
            return
        try:
            if not self._is_summed_up:
                self._is_summed_up = True
                self._tell_summary()
        finally:
            self._summing_up.release()

    def _tell_summary(self) -> None:
        summaries = [summarize(listener.name, str(listener.address), listener.stats()) for listener in self._listeners]
        self._output.data(
            None,
            event="stopped",
            signal=self._stop.last or None,
            uptime_s=round(time.monotonic() - self._started_at, 3),
            listeners=[summary.fields() for summary in summaries],
        )
        for summary in summaries:
            self._output.note(str(summary))

    # Never longer than promised, whatever a handler does to the loop

    def _stop_requested(self, count: int) -> None:
        timeouts_s = [opening.options.shutdown_timeout for opening in self._openings]
        if count >= 3:
            _leave(ExitCode.FAILED)
        elif count == 2:
            self._force_after(FORCE_AFTER_S)
        elif None not in timeouts_s:
            self._force_after(max(timeout_s or 0.0 for timeout_s in timeouts_s) + FORCE_AFTER_S)

    def _force_after(self, delay_s: float) -> None:
        if self._force_timer is not None:
            self._force_timer.cancel()
        self._force_timer = timer = threading.Timer(delay_s, self._force)
        timer.daemon = True
        timer.start()

    def _force(self) -> None:
        try:
            self._output.note("the listeners do not end in time; leaving without them")
            self._sum_up()
        finally:  # counters that change while another thread reads them may be unreadable for once
            _leave(ExitCode.FAILED)


def _leave(status: ExitCode) -> NoReturn:
    """End the process whatever its threads and handlers do."""
    for stream in (sys.stdout, sys.stderr):
        # No stream, no reader, or in the midst of a write: nothing more can be said.
        with suppress(AttributeError, OSError, RuntimeError, ValueError):
            stream.flush()
    os._exit(status)


def _cannot_start(error: Exception) -> CommandError:
    if isinstance(error, SocketError):
        code = "address_in_use" if isinstance(error, AddressInUse) else "cannot_bind"
        return CommandError(str(error), code=code, status=ExitCode.CANNOT_START)
    return UsageError(str(error))
