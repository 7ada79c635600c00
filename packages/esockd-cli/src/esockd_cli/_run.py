"""Runs listeners until a signal or their own failure ends them, and never longer than it promised."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from esockd_cli._announcements import Announcements, longest
from esockd_cli._bad_options import bad_option
from esockd_cli._collector import Collector
from esockd_cli._control import open_control
from esockd_cli._dashboard import show_dashboard
from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._failures import cannot_start
from esockd_cli._forced_end import FORCE_AFTER_S, ForcedEnd, leave
from esockd_cli._freezing import tuned_collector
from esockd_cli._log_file import reopen_log_file
from esockd_cli._service import Service
from esockd_cli._signals import Signals
from esockd_cli._summary import summarize
from esockd_cli._upgrading import Upgrading
from esockd_cli.metrics.endpoint import announce_metrics, serve_metrics
from esockd_core import AlreadyOpen, EsockdError, InvalidOption, Server, SocketError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from esockd_cli._control import Control
    from esockd_cli._host import Host
    from esockd_cli._opening import Opening
    from esockd_cli._output import Output
    from esockd_cli.config.running import ConfigFile
    from esockd_core import Listener

Loop = Literal["auto", "asyncio", "uvloop", "trio"]

logger = logging.getLogger("esockd_cli")

SUMMARY_S: Final = 1.0  # for a summary that another thread is writing, perhaps to somebody who does not read


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


def run(
    openings: Sequence[Opening],
    loop: Loop,
    output: Output,
    control: Control | None,
    file: ConfigFile | None = None,
    *,
    host: Host,
) -> ExitCode:
    """Open listeners and serve them until they are stopped.

    Args:
        openings: The listeners.
        loop: The event loop.
        output: Where to tell.
        control: The control socket; None for none.
        file: The configuration file that they come from; None if they come from a command line.
        host: What the process has beside them.

    Raises:
        UsageError: An option does not apply to an address.
        CommandError: An address cannot be opened.
    """
    loop_name, backend, backend_options = choose_loop(loop)
    return Run(openings, loop_name, output, control, file, host=host).run(backend, backend_options)


class Run:
    """One run of listeners: from their opening to the summary."""

    def __init__(
        self,
        openings: Sequence[Opening],
        loop_name: str,
        output: Output,
        control: Control | None = None,
        file: ConfigFile | None = None,
        *,
        host: Host,
    ) -> None:
        self._openings = openings
        self._control = control
        self._file = file
        self._host = host
        self._announcements = Announcements(output, loop_name)
        self._output = output
        self._listeners: list[Listener] = []
        self._service: Service
        self._tasks: TaskGroup  # there before the control socket, over which a reload or an upgrade may be asked for
        self._summing_up = threading.Lock()
        self._is_summed_up = False
        self._upgrading = Upgrading(output, control, nullcontext if file is None else file.undisturbed)
        self._upgrading.retire = self._retire
        self._watching: anyio.CancelScope | None = None
        self._signals = Signals(self._stop_requested)
        handlers = ", ".join(dict.fromkeys(opening.handler_text for opening in openings))
        self._end = ForcedEnd(output, self._sum_up, handlers)

    def run(self, backend: str, backend_options: dict[str, Any]) -> ExitCode:
        """Serve until stopped; see `run`."""
        with self._signals, tuned_collector():
            return anyio.run(self._serve, backend=backend, backend_options=backend_options)

    async def _serve(self) -> ExitCode:
        server = Server()
        self._service = Service(server)
        # It is there before the first listener, and until the last connection has ended.
        is_successor = self._upgrading.is_successor
        async with serve_metrics(server, self._host.metrics, suspended=is_successor) as endpoint:
            self._upgrading.endpoint = endpoint
            failure = await self._serve_listeners(server, endpoint)
        if failure is not None:
            raise cannot_start(failure) from failure
        was_lost = self._file is not None and self._file.has_lost_listeners and not self._upgrading.is_ending
        failed = was_lost or any(listener.failure is not None for listener in self._listeners)
        self._sum_up()
        if any(listener.stats().shutdown_counts.get("stuck") for listener in self._listeners):
            self._output.note("a handler does not end; leaving without it")
            leave(ExitCode.FAILED)
        return ExitCode.FAILED if failed else ExitCode.OK

    async def _serve_listeners(self, server: Server, endpoint: Listener | None) -> Exception | None:
        failure: Exception | None = None
        async with server:
            try:
                for opening in self._openings:
                    self._listeners.append(
                        await server.open(
                            opening.name,
                            opening.address,
                            opening.handler,
                            opening.options,
                            suspended=self._upgrading.is_successor,
                        )
                    )
            except (SocketError, InvalidOption, AlreadyOpen) as error:
                failure = error
            else:
                if self._file is not None:
                    from esockd_cli.config.hosting import ServerHosting  # noqa: PLC0415 (of files only)

                    self._file.attach(ServerHosting(server), self._begun, self._end_listener)
                    self._file.reloading = self._service.reloading
                await self._upgrading.begin(self._listeners)
                methods = self._upgrading.methods() | ({} if self._file is None else self._file.methods())
                async with anyio.create_task_group() as self._tasks:
                    with Collector() as collector:
                        async with open_control(server, self._control, methods | collector.methods()) as serving:
                            self._upgrading.serving = serving
                            await self._upgrading.took_over()
                            instance = None if serving is None else serving.name
                            self._announce(instance)
                            announce_metrics(endpoint, self._output)
                            await self._service.ready()
                            await self._serve_until_closed(instance)
                    self._tasks.cancel_scope.cancel()
        return failure

    async def _serve_until_closed(self, instance: str | None) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._obey, task_group)
            task_group.start_soon(self._upgrading.keep_stored)
            task_group.start_soon(self._service.tell)
            if instance is not None and self._control is not None and self._control.has_dashboard:
                task_group.start_soon(show_dashboard, instance)
            if self._file is not None and not self._upgrading.is_over:
                task_group.start_soon(self._watch, self._file)
            while open_ones := [listener for listener in self._listeners if listener.state != "closed"]:
                await open_ones[0].wait_closed()
                if self._file is not None:
                    await self._file.settle()  # it may be about to open another one in its place
            self._service.stopping()
            task_group.cancel_scope.cancel()

    async def _watch(self, file: ConfigFile) -> None:
        with anyio.CancelScope() as self._watching:
            await file.watch()

    def _retire(self) -> None:
        """Begin to close, because another program has taken over."""
        self._service.handed_over()
        if self._watching is not None:
            self._watching.cancel()
        if (timeout_s := longest(self._timeouts_s())) is not None:
            self._end.after(timeout_s + FORCE_AFTER_S)
        self._end.watch()
        self._tasks.start_soon(self._end.beat)
        for listener in self._listeners:
            self._tasks.start_soon(listener.close)

    async def _obey(self, task_group: TaskGroup) -> None:
        """Do what signals ask for: the first request to stop closes the listeners, the second kills them."""
        stops = 0
        while True:
            number = await self._signals.next()
            if number == signal.SIGUSR2:
                task_group.start_soon(self._upgrading.by_signal)
            elif number == signal.SIGHUP and self._upgrading.is_over:
                continue  # the program that has taken over has the file now
            elif number == signal.SIGHUP and self._file is not None:
                task_group.start_soon(self._file.reload, "SIGHUP")
            elif number == signal.SIGHUP:
                async with self._service.reloading():
                    await self._read_certificates_again()
            elif number == signal.SIGUSR1:
                reopen_log_file(self._output.log_file, "SIGUSR1")
                self._tell_summary("summary")
            else:
                stops += 1
                self._upgrading.stop()
                if stops == 1:
                    self._service.stopping()
                    self._tell_stop()
                    task_group.start_soon(self._end.beat)
                for listener in self._listeners:
                    task_group.start_soon(listener.close if stops == 1 else listener.kill)

    def _begun(self, listener: Listener) -> None:
        """Note a listener that was opened later."""
        key = (listener.name, listener.address)  # one that was closed by hand goes on in this one, counters and all
        self._listeners = [each for each in self._listeners if (each.name, each.address) != key]
        self._listeners.append(listener)
        self._announce_one(listener, None)
        if self._signals.stops:
            self._tasks.start_soon(listener.close)

    def _end_listener(self, listener: Listener) -> None:
        """Begin to end a listener before the others."""
        self._tasks.start_soon(self._drain, listener)

    async def _drain(self, listener: Listener) -> None:
        await listener.close()
        summary = summarize(listener.name, str(listener.address), listener.stats())
        self._listeners = [each for each in self._listeners if each is not listener]
        self._output.data(None, event="closed", **summary.fields())
        self._output.note(f"closed {summary}")

    async def _read_certificates_again(self) -> None:
        encrypted = [listener for listener in self._listeners if listener.options.tls or listener.options.dtls]
        for listener in encrypted:
            name = f"{listener.name} {listener.address}"
            try:
                await listener.set_tls()
            except (EsockdError, OSError) as error:  # a signal ends nothing, whatever is wrong
                problem = bad_option(error).message if isinstance(error, InvalidOption) else str(error)
                logger.error("SIGHUP: %s keeps its certificate: %s", name, problem)  # noqa: TRY400
            else:
                self._output.data(None, event="certificate_read", listener=listener.name, address=str(listener.address))
                self._output.note(f"SIGHUP: certificate and key of {name} were read again")
        if not encrypted:
            self._output.note("SIGHUP: there is no certificate to read again")

    def _announce(self, instance: str | None) -> None:
        for listener in self._listeners:
            self._announce_one(listener, instance)
        for listener in self._listeners:
            self._announcements.note_if_loopback(listener.address, listener.port)
        self._announcements.serving(instance)

    def _announce_one(self, listener: Listener, instance: str | None) -> None:
        self._announcements.listening(listener.name, listener.addresses, listener.port, instance)

    def _timeouts_s(self) -> list[float | None]:
        """How long the handlers of each listener may go on."""
        return [each.options.shutdown_timeout for each in self._listeners or self._openings]

    def _tell_stop(self) -> None:
        connections = sum(len(listener.connections) for listener in self._listeners)
        self._announcements.stopping(self._signals.last_stop, connections, self._timeouts_s())

    def _sum_up(self) -> None:
        if not self._summing_up.acquire(timeout=SUMMARY_S):
            return
        try:
            if not self._is_summed_up:
                self._is_summed_up = True
                self._tell_summary("stopped")
        finally:
            self._summing_up.release()

    def _tell_summary(self, event: Literal["summary", "stopped"]) -> None:
        summaries = [summarize(listener.name, str(listener.address), listener.stats()) for listener in self._listeners]
        self._announcements.summary(event, self._signals.last_stop, summaries)

    def _stop_requested(self, count: int) -> None:
        """Never take longer than promised, whatever a handler does to the event loop."""
        if count >= 3:
            leave(ExitCode.FAILED)
        elif count == 2:
            self._end.after(FORCE_AFTER_S)
        elif (timeout_s := longest(self._timeouts_s())) is not None:
            self._end.after(timeout_s + FORCE_AFTER_S)
        self._end.watch()
