"""The dashboard at a terminal: keys and signals go in, changes of the picture come out."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from esockd_cli._errors import ExitCode
from esockd_cli.top.canvas import changes
from esockd_cli.top.keys import KeyDecoder
from esockd_cli.top.terminal import BEGIN_PICTURE, END_PICTURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_cli.top.canvas import Row, Style
    from esockd_cli.top.dashboard import Dashboard
    from esockd_cli.top.terminal import Terminal

PICTURE_S: Final = 0.04  # between two pictures at least: a key that is held down asks for more than anybody sees
ESCAPE_S: Final = 0.05  # what follows an escape after so long is not of its sequence
ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Feed(Protocol):
    """Where frames come from."""

    async def run(self, changed: Callable[[], None]) -> None:
        """Show frames to a dashboard, and say each time that there is something new to draw."""
        ...

    def notice_key(self) -> None:
        """A key may have changed what is wanted."""
        ...


class Session:
    """One showing of a dashboard.

    Args:
        dashboard: What is shown.
        feed: What shows it frames.
        terminal: Where.
        sgr: The terminal's styles.
        is_ascii: Whether the terminal knows ASCII only.
    """

    def __init__(
        self, dashboard: Dashboard, feed: Feed, terminal: Terminal, sgr: dict[Style, str], *, is_ascii: bool
    ) -> None:
        self._dashboard = dashboard
        self._feed = feed
        self._terminal = terminal
        self._sgr = sgr
        self._is_ascii = is_ascii
        self._shown: list[Row] | None = None
        self._changed = anyio.Event()
        self._status = ExitCode.OK
        self._partners: tuple[int, ...] = ()

    async def run(self, lifeline: int | None = None) -> ExitCode:
        """Show until somebody quits, or a signal ends it.

        Args:
            lifeline: A descriptor whose end of file ends it too, held by the parent; None for none.
        """
        self._partners = () if lifeline is None else (os.getppid(),)
        async with anyio.create_task_group() as tasks:
            # Signals first: from here on every end is an orderly one.
            await tasks.start(self._obey_signals, tasks.cancel_scope)
            self._terminal.take()
            tasks.start_soon(self._read_keys, tasks.cancel_scope)
            tasks.start_soon(self._feed.run, self._change)
            if lifeline is not None:
                tasks.start_soon(_wait_for_end, lifeline, tasks.cancel_scope)
            await self._draw()
        return self._status

    def _change(self) -> None:
        self._changed.set()

    async def _draw(self) -> None:
        size = (0, 0)
        while True:
            self._changed = anyio.Event()
            if self._terminal.size != size or self._dashboard.must_redraw:
                size, self._shown, self._dashboard.must_redraw = self._terminal.size, None, False
            rows = self._dashboard.draw(*size).rows()
            text = changes(self._shown, rows, self._sgr, ascii_only=self._is_ascii)
            self._shown = rows
            if text:
                # While the terminal takes its time, frames come and go, and only the newest is drawn.
                await self._terminal.write(f"{BEGIN_PICTURE}{text}{END_PICTURE}".encode())
            await anyio.sleep(PICTURE_S)
            await self._changed.wait()

    async def _read_keys(self, session: anyio.CancelScope) -> None:
        decoder = KeyDecoder()
        while not self._dashboard.is_over:
            data: bytes | None = None
            with anyio.move_on_after(ESCAPE_S if decoder.is_waiting else None):
                data = await self._terminal.read()
                if not data:
                    break
            for key in decoder.flush() if data is None else decoder.feed(data):
                self._dashboard.press(key)
            self._feed.notice_key()
            self._change()
        session.cancel()

    async def _obey_signals(
        self, session: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(*ENDS, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT) as received:
            task_status.started()
            async for number in received:
                if number in ENDS:
                    self._status = ExitCode.INTERRUPTED
                    session.cancel()
                    return
                if number == signal.SIGTSTP:
                    self._terminal.stop(*self._partners)
                elif number == signal.SIGCONT:
                    self._terminal.take()
                self._dashboard.must_redraw = self._dashboard.must_redraw or number != signal.SIGWINCH
                self._change()


async def _wait_for_end(descriptor: int, session: anyio.CancelScope) -> None:
    while True:
        await anyio.wait_readable(descriptor)
        if not os.read(descriptor, 1024):
            session.cancel()
            return
