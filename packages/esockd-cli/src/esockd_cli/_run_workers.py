"""Runs listeners with worker processes until a signal or their own end, as `_run` does without."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio

from esockd_cli._announcements import Announcements
from esockd_cli._control import open_control
from esockd_cli._dashboard import show_dashboard
from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._failures import cannot_start
from esockd_cli._forced_end import leave
from esockd_cli._log_file import reopen_log_file
from esockd_cli._run import choose_loop
from esockd_cli._service import Service
from esockd_cli._serving_as import serve_as
from esockd_cli._signals import Signals
from esockd_cli._summary import summarize
from esockd_cli._upgrading import Upgrading
from esockd_cli._worker import SET_UP
from esockd_cli.config.hosting import WorkersHosting
from esockd_cli.metrics.endpoint import announce_metrics, serve_metrics
from esockd_core import (
    AlreadyOpen,
    ControlError,
    EsockdError,
    InvalidOption,
    ListenerClosed,
    ListenerOptions,
    SocketError,
    parse_address,
)
from esockd_core.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from esockd_cli._control import Control
    from esockd_cli._host import Host
    from esockd_cli._output import Output
    from esockd_cli._run import Loop
    from esockd_cli.config.running import ConfigFile
    from esockd_core import ListenerStatus, Stats
    from esockd_core.workers import SharedControl, WorkerListener


def run_workers(
    listeners: Sequence[WorkerListener],
    count: int | None,
    loop: Loop,
    output: Output,
    control: Control | None,
    *,
    host: Host,
    file: ConfigFile | None = None,
) -> ExitCode:
    """Open listeners and serve them with workers until they are stopped.

    Args:
        listeners: The listeners.
        count: How many workers there are; None for one for each processor.
        loop: The event loop of the workers.
        output: Where to tell.
        control: The control socket; None for none.
        host: What the process has beside them.
        file: The configuration file that they come from; None if they come from a command line.

    Raises:
        UsageError: An option does not apply to an address.
        CommandError: An address cannot be opened, or a worker cannot start.
    """
    loop_name, backend, backend_options = choose_loop(loop)
    upgrading = Upgrading(output, control, nullcontext if file is None else file.undisturbed)
    workers = Workers(
        listeners,
        count=count,
        loop=cast("Literal['asyncio', 'uvloop', 'trio']", loop_name),
        setup=SET_UP,
        setup_arguments=(output,),
        suspended=upgrading.is_successor,
    )
    addresses = [(parse_address(each.address), each.options or ListenerOptions()) for each in listeners]
    serve_as(host, addresses, worker_count=workers.count)
    return WorkersRun(workers, loop_name, output, upgrading, file, host=host).run(backend, backend_options)


class WorkersRun:
    """One run of workers: from the opening of their addresses to the summary."""

    def __init__(
        self,
        workers: Workers,
        loop_name: str,
        output: Output,
        upgrading: Upgrading,
        file: ConfigFile | None = None,
        *,
        host: Host,
    ) -> None:
        self._workers = workers
        self._file = file
        self._announcements = Announcements(output, loop_name, workers.count)
        self._output = output
        self._control = upgrading.control
        self._host = host
        self._controls: list[SharedControl] = []
        self._watching: anyio.CancelScope | None = None
        self._tasks: TaskGroup  # as of `Run`
        self._service: Service
        self._upgrading = upgrading
        upgrading.retire = self._retire
        self._signals = Signals(_leave_at_third)

    def run(self, backend: str, backend_options: dict[str, Any]) -> ExitCode:
        """Serve until stopped."""
        with self._signals:
            return anyio.run(self._serve, backend=backend, backend_options=backend_options)

    async def _serve(self) -> ExitCode:
        async with AsyncExitStack() as stack:
            self._service = Service(self._workers)
            is_successor = self._upgrading.is_successor
            endpoint = await stack.enter_async_context(
                serve_metrics(self._workers, self._host.metrics, suspended=is_successor)
            )
            self._upgrading.endpoint = endpoint
            try:
                await stack.enter_async_context(self._workers)
            except (SocketError, InvalidOption, AlreadyOpen) as error:
                raise cannot_start(error) from error
            except EsockdError as error:
                hint = error.hint if isinstance(error, ControlError) else None
                code = error.code if isinstance(error, ControlError) else "cannot_start"
                message = error.message if isinstance(error, ControlError) else str(error)
                raise CommandError(f"{message}.", code=code, status=ExitCode.CANNOT_START, hint=hint) from error
            self._controls = [*self._workers.listeners()]
            if self._file is not None:
                hosting = WorkersHosting(self._workers, self._file.app_dir)
                self._file.attach(hosting, self._begun, self._end_listener)
                self._file.reloading = self._service.reloading
            await self._upgrading.begin(self._controls)
            methods = self._upgrading.methods() | ({} if self._file is None else self._file.methods())
            async with anyio.create_task_group() as self._tasks:
                async with open_control(self._workers, self._control, methods) as serving:
                    self._upgrading.serving = serving
                    await self._upgrading.took_over()
                    instance = None if serving is None else serving.name
                    await self._announce(instance)
                    announce_metrics(endpoint, self._output)
                    await self._service.ready()
                    await self._serve_until_closed(instance)
                self._tasks.cancel_scope.cancel()
            await self._tell_summary("stopped")
        was_lost = self._file is not None and self._file.has_lost_listeners and not self._upgrading.is_ending
        return ExitCode.FAILED if was_lost else ExitCode.OK

    async def _serve_until_closed(self, instance: str | None) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._obey)
            task_group.start_soon(self._upgrading.keep_stored)
            task_group.start_soon(self._service.tell)
            if instance is not None and self._control is not None and self._control.has_dashboard:
                task_group.start_soon(show_dashboard, instance)
            if self._file is not None and not self._upgrading.is_over:
                task_group.start_soon(self._watch, self._file)
            await self._workers.wait_closed()
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
        for control in self._controls:
            self._tasks.start_soon(control.close)

    async def _obey(self) -> None:
        """Do what signals ask for."""
        stops = 0
        async with anyio.create_task_group() as task_group:
            while True:
                match await self._signals.next():
                    case signal.SIGUSR2:
                        task_group.start_soon(self._upgrading.by_signal)
                    case signal.SIGHUP if self._upgrading.is_over:
                        pass  # its workers end, and the others are another program's
                    case signal.SIGHUP if self._file is not None:
                        task_group.start_soon(self._file.reload, "SIGHUP")
                    case signal.SIGHUP:
                        task_group.start_soon(self._restart)
                    case signal.SIGUSR1:
                        reopen_log_file(self._output.log_file, "SIGUSR1")
                        task_group.start_soon(self._tell_summary, "summary")
                    case _:
                        stops += 1
                        self._upgrading.stop()
                        task_group.start_soon(self._close if stops == 1 else self._hurry)

    async def _close(self) -> None:
        self._service.stopping()
        await self._tell_stop()
        async with anyio.create_task_group() as task_group:
            for control in self._controls:
                task_group.start_soon(control.close)

    async def _hurry(self) -> None:
        async with anyio.create_task_group() as task_group:
            for control in self._controls:
                task_group.start_soon(control.drain, 0)

    async def _restart(self) -> None:
        try:
            async with self._service.reloading():
                await self._workers.restart()
        except ListenerClosed:
            return
        except EsockdError as error:
            text = error.message if isinstance(error, ControlError) else str(error)
            self._output.note(f"SIGHUP: the workers before go on: {text}")
            self._output.data(None, event="restart_failed", reason=text)
        else:
            self._output.data(None, event="restarted", workers=self._workers.count)
            self._output.note(f"SIGHUP: {self._workers.count} workers were replaced")

    def _begun(self, control: SharedControl) -> None:
        """Note a listener that was opened later."""
        key = (control.name, control.address)  # one that was closed by hand goes on in this one, counters and all
        self._controls = [each for each in self._controls if (each.name, each.address) != key]
        self._controls.append(control)
        self._tasks.start_soon(self._announce_one, control, None)
        if self._signals.stops:
            self._tasks.start_soon(control.close)

    def _end_listener(self, control: SharedControl) -> None:
        """Begin to end a listener before the others."""
        self._tasks.start_soon(self._drain, control)

    async def _drain(self, control: SharedControl) -> None:
        await control.close()
        summary = summarize(control.name, str(control.address), await control.get_stats())
        self._controls = [each for each in self._controls if each is not control]
        self._output.data(None, event="closed", **summary.fields())
        self._output.note(f"closed {summary}")

    async def _announce(self, instance: str | None) -> None:
        for control in self._controls:
            await self._announce_one(control, instance)
        for control in self._controls:
            self._announcements.note_if_loopback(control.address, (await control.get_status()).port)
        self._announcements.serving(instance)

    async def _announce_one(self, control: SharedControl, instance: str | None) -> None:
        status = await control.get_status()
        self._announcements.listening(status.name, status.addresses, status.port, instance)

    async def _tell_stop(self) -> None:
        connections = 0
        timeouts_s: list[float | None] = []
        for control, stats in await self._ask_stats():
            connections += stats.current_connections
            timeouts_s.append(cast("float | None", (await control.get_options())["shutdown_timeout"]))
        self._announcements.stopping(self._signals.last_stop, connections, timeouts_s)

    async def _tell_summary(self, event: Literal["summary", "stopped"]) -> None:
        summaries = []
        for control, stats in await self._ask_stats():
            status: ListenerStatus = await control.get_status()
            summaries.append(summarize(status.name, status.address, stats))
        self._announcements.summary(event, self._signals.last_stop, summaries)

    async def _ask_stats(self) -> list[tuple[SharedControl, Stats]]:
        """The counters of all listeners, asked for at once, so that a worker that hangs is waited for only once."""
        controls = [*self._controls]
        found: dict[int, Stats] = {}

        async def ask(number: int, control: SharedControl) -> None:
            found[number] = await control.get_stats()

        async with anyio.create_task_group() as task_group:
            for number, control in enumerate(controls):
                task_group.start_soon(ask, number, control)
        return [(control, found[number]) for number, control in enumerate(controls)]


def _leave_at_third(count: int) -> None:
    if count >= 3:
        leave(ExitCode.FAILED)  # and the workers die with their parent
