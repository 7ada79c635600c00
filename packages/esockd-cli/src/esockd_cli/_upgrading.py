"""Upgrades of a running command: a new program takes its place on the same sockets, or it goes on as it was."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._failures import cannot_start
from esockd_cli._notify import Notifier
from esockd_cli._output import TOLD
from esockd_core import ControlError, EsockdError, ProgramMethod, SocketError
from esockd_core.upgrade import (
    close_unclaimed_sockets,
    find_predecessor,
    receive_stored_sockets,
    replace_program,
    sockets_to_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from esockd_cli._control import Control
    from esockd_cli._output import Output
    from esockd_core import ControlServer, ListenerControl
    from esockd_core.upgrade import Predecessor

logger = logging.getLogger("esockd_cli")

START_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 1.0


@cache
def predecessor() -> Predecessor | None:
    """The program whose place this one takes; None if there is none.

    Raises:
        CommandError: What came from it cannot be used.
    """
    try:
        found = find_predecessor()
    except EsockdError as error:
        raise CommandError(f"{error}.", code="cannot_upgrade", status=ExitCode.CANNOT_START) from error
    if found is not None:
        os.environ.pop("WATCHDOG_PID", None)  # it names that program, and the watchdog will wait for this one
    return found


@cache
def _stored_sockets() -> tuple[str, ...]:
    """What the service manager has kept for the listeners of this process.

    Raises:
        CommandError: It contradicts itself.
    """
    try:
        return receive_stored_sockets()
    except SocketError as error:
        raise cannot_start(error) from error


def receive_sockets() -> None:
    """Keep the sockets that came with this process for the listeners that will ask for them.

    Raises:
        CommandError: They cannot be used.
    """
    predecessor()
    _stored_sockets()


def run_as_successor(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command line in the place of another program, which is told if it fails."""
    status = run(arguments)
    if status and (before := predecessor()) is not None:
        before.fail(" ".join(TOLD) or f"it ended with status {status}")
    return status


class Upgrading:
    """The upgrades of one run of listeners: that by which it began, and the one by which it ends.

    Args:
        output: Where to tell.
        control: What is known of the control socket.
        undisturbed: Lets nothing else change the listeners while an upgrade is under way.

    Attributes:
        control: What is known of the control socket.
        retire: Begins to close the listeners, whose clients are those of the new program.
        serving: The control socket; None as long as there is none.
        endpoint: The listener of metrics and probes; None if there is none.
        is_successor: Whether this program takes the place of another one, so that listeners begin suspended.
        is_over: Whether another program has taken the place of this one.
        is_closing: Whether this program was told to end.
    """

    def __init__(
        self,
        output: Output,
        control: Control | None,
        undisturbed: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self.control = control
        self.serving: ControlServer | None = None
        self.endpoint: ListenerControl | None = None
        self.is_over = False
        self._predecessor = predecessor()
        self.is_successor = self._predecessor is not None
        self._stored = _stored_sockets()
        self._output = output
        self.retire: Callable[[], None] = _nothing
        self._undisturbed = undisturbed
        self._is_under_way = False
        self.is_closing = False
        self._starting: anyio.CancelScope | None = None

    # This program takes the place of another one

    async def begin(self, listeners: Iterable[ListenerControl]) -> None:
        """Say that the listeners are open, and let them accept when the program before says so.

        Raises:
            CommandError: It does not answer, or a listener does not accept.
        """
        if self._predecessor is not None:
            try:
                await self._predecessor.ready()
                for listener in (*listeners, *self._beside()):
                    await listener.resume()
            except EsockdError as error:
                text = error.message if isinstance(error, ControlError) else str(error)
                raise CommandError(f"{text}.", code="cannot_upgrade", status=ExitCode.CANNOT_START) from error

    def _beside(self) -> tuple[ListenerControl, ...]:
        return () if self.endpoint is None else (self.endpoint,)

    async def took_over(self) -> None:
        """Say that the listeners and the control socket accept."""
        if self._predecessor is not None:
            await self._predecessor.took_over()
        close_unclaimed_sockets()

    async def keep_stored(self) -> None:
        """Have the service manager keep the listening sockets until it starts this program again."""
        manager = Notifier()
        stored: dict[str, tuple[int, ...]] = dict.fromkeys(self._stored, ())
        while manager.is_heard and not self.is_over and not self.is_closing:
            sockets = sockets_to_store()
            inodes = {name: tuple(os.fstat(each).st_ino for each in sockets[name]) for name in sockets}
            for name, before in stored.items():
                if inodes.get(name) != before:
                    manager.forget(name)  # or clients would queue there for nobody
            for name, descriptors in sockets.items():
                if inodes[name] != stored.get(name):
                    manager.store(name, descriptors)
            stored = inodes
            await anyio.sleep(LOOK_EVERY_S)

    # Another program takes the place of this one

    @property
    def is_ending(self) -> bool:
        """Whether this program ends because it is to."""
        return self.is_over or self.is_closing

    def stop(self) -> None:
        """Note that this program was told to end. A new one that would serve on after it ends too."""
        self.is_closing = True
        if self._starting is not None:
            self._starting.cancel()

    def methods(self) -> dict[str, ProgramMethod]:
        """What may be asked over the control socket."""
        return {"upgrade": ProgramMethod(self._answer)}

    async def _answer(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        timeout_s = given.get("timeout", START_TIMEOUT_S)
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 3600:
            raise ControlError("timeout takes seconds, above 0 and up to 3600", code="bad_option")
        return {"pid": await self.upgrade("esockd upgrade", float(timeout_s)), "replaced": os.getpid()}

    async def by_signal(self) -> None:
        """Upgrade, and tell how that went in the log only."""
        try:
            await self.upgrade("SIGUSR2", START_TIMEOUT_S)
        except ControlError as error:
            if error.code != "cannot_upgrade":  # which is told already
                logger.error("SIGUSR2: %s", error.message)  # noqa: TRY400

    async def upgrade(self, why: str, timeout_s: float) -> int:
        """Let a new program take the place of this one, and begin to end.

        Args:
            why: Who asked.
            timeout_s: The most seconds until it is ready.

        Returns:
            Its process id.

        Raises:
            ControlError: It is not possible now, or the new program failed. This one goes on.
        """
        if self._is_under_way:
            raise ControlError("an upgrade is under way", code="busy")
        if self.is_over or self.is_closing:
            raise ControlError("this program ends: it cannot be upgraded any more", code="closing")
        if os.getpid() == 1:
            hint = "Start another container."
            raise ControlError("process 1 cannot be replaced: its container ends with it", code="no_upgrade", hint=hint)
        if self.control is not None and self.control.has_dashboard:
            raise ControlError(
                "the dashboard has this terminal, and a new program would need it too",
                code="no_upgrade",
                hint="Start it without --dashboard, and watch it with: esockd top",
            )
        self._is_under_way = True
        pid = 0
        try:
            with anyio.CancelScope() as self._starting:
                async with self._undisturbed():
                    pid = await replace_program(self.serving, timeout=timeout_s, on_replaced=Notifier().hand_over)
                    self.is_over = True
        except ControlError as error:
            logger.error("%s: %s; this one goes on", why, error.message)  # noqa: TRY400
            self._output.data(None, event="upgrade_failed", why=why, reason=error.message)
            raise
        finally:
            self._is_under_way = False
            self._starting = None
        if not self.is_over:
            raise ControlError("this program was told to end, and so was the new one", code="closing")
        self._output.data(None, event="upgraded", why=why, pid=pid)
        self._output.note(f"{why}: pid {pid} has taken over; closing")
        self.retire()
        for listener in self._beside():
            await listener.close()
        return pid


def _nothing() -> None: ...
