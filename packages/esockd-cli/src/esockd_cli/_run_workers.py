"""Runs listeners with worker processes until a signal or their own end, as `_run` does without."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import anyio

from esockd_cli._announcements import Announcements
from esockd_cli._control import open_control
from esockd_cli._dashboard import show_dashboard
from esockd_cli._errors import CommandError, ExitCode, UsageError
from esockd_cli._failures import cannot_start
from esockd_cli._forced_end import leave
from esockd_cli._log_file import reopen_log_file
from esockd_cli._run import choose_loop
from esockd_cli._service import Service
from esockd_cli._serving_as import serve_as
from esockd_cli._signals import Signals
from esockd_cli._summary import summarize
from esockd_cli._upgrading import Upgrading
from esockd_cli.metrics.endpoint import announce_metrics, serve_metrics
from esockd_core import (
    AlreadyOpen,
    ControlError,
    EsockdError,
    InvalidOption,
    ListenerClosed,
    SocketError,
)
from esockd_core.workers import WorkerListener, Workers

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import TaskGroup

    from esockd_cli._control import Control
    from esockd_cli._host import Host
    from esockd_cli._output import Output
    from esockd_cli._run import Loop
    from esockd_core import Address, ListenerControl, ListenerOptions, ListenerStatus

MAKE_HANDLER: Final = "esockd_cli._worker:make_handler"
SET_UP: Final = "esockd_cli._worker:set_up"


@dataclass(frozen=True, slots=True)
class WorkerOpening:
    """Listeners to open, one for each address.

    Attributes:
        name: Their name.
        handler: What the command line calls the handler.
        app_dir: The folder that user modules are found in.
        values: The values of the flags.
        addresses: Where they listen, each with its options.
    """

    name: str
    handler: str
    app_dir: Path
    values: dict[str, Any]
    addresses: tuple[tuple[Address, ListenerOptions], ...]

    def listeners(self) -> list[WorkerListener]:
        """The same for `Workers`."""
        arguments = (self.handler, self.app_dir.resolve(), self.values)
        return [
            WorkerListener(
                name=self.name, address=address, handler=MAKE_HANDLER, handler_arguments=arguments, options=options
            )
            for address, options in self.addresses
        ]


def read_count(text: str) -> int | None:
    """Read the number of workers; None for one for each processor.

    Raises:
        UsageError: It is not a number.
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f'--workers {text}: it takes a number, or "auto" for one for each processor.')
    return int(text)


def run_workers(
    opening: WorkerOpening,
    count: int | None,
    loop: Loop,
    output: Output,
    control: Control | None,
    *,
    host: Host,
) -> ExitCode:
    """Open listeners and serve them with workers until they are stopped.

    Args:
        opening: The listeners.
        count: How many workers there are; None for one for each processor.
        loop: The event loop of the workers.
        output: Where to tell.
        control: The control socket; None for none.
        host: What the process has beside them.

    Raises:
        UsageError: An option does not apply to an address.
        CommandError: An address cannot be opened, or a worker cannot start.
    """
    loop_name, backend, backend_options = choose_loop(loop)
    upgrading = Upgrading(output, control)
    try:
        workers = Workers(
            opening.listeners(),
            count=count,
            loop=cast("Literal['asyncio', 'uvloop', 'trio']", loop_name),
            setup=SET_UP,
            setup_arguments=(output,),
            suspended=upgrading.is_successor,
        )
    except InvalidOption as error:
        raise UsageError(f"--workers {count}: {error.reason}.") from error
    serve_as(host, opening.addresses, processes=workers.count)
    return WorkersRun(workers, opening, loop_name, output, upgrading, host=host).run(backend, backend_options)


class WorkersRun:
    """One run of workers: from the opening of their addresses to the summary."""

    def __init__(
        self,
        workers: Workers,
        opening: WorkerOpening,
        loop_name: str,
        output: Output,
        upgrading: Upgrading,
        *,
        host: Host,
    ) -> None:
        self._workers = workers
        self._opening = opening
        self._announcements = Announcements(output, loop_name, workers.count)
        self._output = output
        self._control = upgrading.control
        self._host = host
        self._controls: tuple[ListenerControl, ...] = ()
        self._tasks: TaskGroup | None = None
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
            self._controls = self._workers.listeners()
            await self._upgrading.begin(self._controls)
            async with open_control(self._workers, self._control, self._upgrading.methods()) as serving:
                self._upgrading.serving = serving
                await self._upgrading.took_over()
                instance = None if serving is None else serving.name
                await self._announce(instance)
                announce_metrics(endpoint, self._output)
                await self._service.ready()
                await self._serve_until_closed(instance)
            await self._tell_summary("stopped")
        return ExitCode.OK

    async def _serve_until_closed(self, instance: str | None) -> None:
        async with anyio.create_task_group() as self._tasks:
            task_group = self._tasks
            task_group.start_soon(self._obey)
            task_group.start_soon(self._upgrading.keep_stored)
            task_group.start_soon(self._service.tell)
            if instance is not None and self._control is not None and self._control.has_dashboard:
                task_group.start_soon(show_dashboard, instance)
            await self._workers.wait_closed()
            self._service.stopping()
            task_group.cancel_scope.cancel()

    def _retire(self) -> None:
        """Begin to close, because another program has taken over."""
        self._service.handed_over()
        if self._tasks is not None:
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
                    case signal.SIGHUP:
                        task_group.start_soon(self._restart)
                    case signal.SIGUSR1:
                        reopen_log_file(self._output.log_file, "SIGUSR1")
                        await self._tell_summary("summary")
                    case _:
                        stops += 1
                        self._upgrading.stop()
                        if stops == 1:
                            self._service.stopping()
                            await self._tell_stop()
                        for control in self._controls:
                            task_group.start_soon(control.close if stops == 1 else partial(control.drain, 0))

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

    async def _announce(self, instance: str | None) -> None:
        statuses = [await control.get_status() for control in self._controls]
        for status in statuses:
            self._announcements.listening(status.name, status.addresses, status.port, instance)
        for (where, _), status in zip(self._opening.addresses, statuses, strict=True):
            self._announcements.note_if_loopback(where, status.port)
        self._announcements.serving(instance)

    async def _tell_stop(self) -> None:
        connections = 0
        timeouts_s: list[float | None] = []
        for control in self._controls:
            connections += (await control.get_stats()).current_connections
            timeouts_s.append(cast("float | None", (await control.get_options())["shutdown_timeout"]))
        self._announcements.stopping(self._signals.last_stop, connections, timeouts_s)

    async def _tell_summary(self, event: Literal["summary", "stopped"]) -> None:
        summaries = []
        for control in self._controls:
            status: ListenerStatus = await control.get_status()
            summaries.append(summarize(status.name, status.address, await control.get_stats()))
        self._announcements.summary(event, self._signals.last_stop, summaries)


def _leave_at_third(count: int) -> None:
    if count >= 3:
        leave(ExitCode.FAILED)  # and the workers die with their parent
