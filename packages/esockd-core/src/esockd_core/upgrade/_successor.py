"""The program that takes the place of this one."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import SocketStream

from esockd_core._platform.child_processes import wait_for_death
from esockd_core._remote.errors import ControlError
from esockd_core._sockets.handed_over import describe, leave_open_addresses, open_addresses
from esockd_core.upgrade._words import ANSWER_S, DONE, GO, READY, VARIABLE, Lines, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_core._remote.server import ControlServer

logger = logging.getLogger("esockd_core")

DEATH_S: Final = 10.0


def _folder() -> str | None:
    """The folder of this process by the name that it was started in, which may lead to another folder later."""
    name = os.environ.get("PWD")
    with suppress(OSError):
        if name is not None and Path(name).samefile("."):
            return name
    return None


FOLDER: Final = _folder()


def _folder_now() -> str | None:
    """The same, if it is still there and this user may enter it; None leaves a successor where this process is."""
    return FOLDER if FOLDER is not None and os.access(f"{FOLDER}/", os.X_OK) else None


async def replace_program(
    control: ControlServer | None = None,
    *,
    timeout: float = 60.0,
    command: Sequence[str] | None = None,
    on_replaced: Callable[[int], None] | None = None,
) -> int:
    """Start a new program on the listening sockets of this one, and return when it has taken over.

    From then on this program has to close its listeners. That leaves the clients in the kernel's queues, and the files
    of Unix sockets, to the new one. If it raises, nothing has changed, and the new program has ended.

    Args:
        control: The control socket of this program, which is the new one's once that is ready.
        timeout: Seconds that the new one may take until it is ready.
        command: The command line; None is that of this process, with the same environment and the Python that is
            installed now.
        on_replaced: Called with the process id of the new program before that goes on by itself.

    Returns:
        The process id of the new program.

    Raises:
        ControlError: If it cannot start, says why it cannot, is not ready in time or dies. This program goes on.
    """
    successor = _Successor(command or [sys.executable, *sys.orig_argv[1:]])
    has_stopped = False
    try:
        await successor.start(timeout)
        if control is not None:
            has_stopped = True
            await control.suspend()
        await successor.go()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await successor.end()
            if control is not None and has_stopped:
                await control.resume()
        raise
    leave_open_addresses()
    if on_replaced is not None:
        on_replaced(successor.pid)
    await successor.leave()
    return successor.pid


class _Successor:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: SocketStream | None = None
        self._lines: Lines | None = None

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    async def start(self, timeout_s: float) -> None:
        handed = [describe(each) for each in open_addresses()]
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            self._stream = stream = await SocketStream.from_socket(ours)
            self._lines = Lines(stream)
            try:
                self._process = subprocess.Popen(  # noqa: S603, ASYNC220 (milliseconds)
                    self._command,
                    env={**os.environ, VARIABLE: str(theirs.fileno())},
                    pass_fds=(theirs.fileno(), *{number for each in handed for number in each.descriptors}),
                    cwd=_folder_now(),
                )
            except OSError as error:
                raise _failure(f"{self._command[0]} cannot be started: {error.strerror}") from error
        try:
            with anyio.fail_after(timeout_s):
                await stream.send(write(sockets=[each.as_dict() for each in handed], pid=os.getpid()))
                await self._expect(READY)
        except TimeoutError as error:
            raise _failure(f"it was not ready within {timeout_s:g} seconds") from error
        except anyio.BrokenResourceError:
            raise await self._why_it_died() from None

    async def go(self) -> None:
        if self._stream is None:
            raise AssertionError("it was not started")
        try:
            with anyio.fail_after(ANSWER_S):
                await self._stream.send(write(says=GO))
                await self._expect(DONE)
        except TimeoutError as error:
            raise _failure(f"it did not take over within {ANSWER_S:g} seconds") from error
        except anyio.BrokenResourceError:
            raise await self._why_it_died() from None
        if self._process is None or self._process.poll() is not None:
            raise await self._why_it_died()

    async def _expect(self, word: str) -> None:
        message = None if self._lines is None else await self._lines.next()
        if message is None:
            raise await self._why_it_died()
        if message.get("says") != word:
            raise _failure(str(message.get("error", message)))

    async def _why_it_died(self) -> ControlError:
        status: int | None = None
        with anyio.move_on_after(1.0):
            if self._process is not None:
                status = await wait_for_death(self._process)
        return _failure("it hung up" if status is None else f"it ended with status {status}")

    async def end(self) -> None:
        if self._stream is not None:
            await anyio.aclose_forcefully(self._stream)
        if self._process is not None:
            self._process.kill()
            with anyio.move_on_after(DEATH_S):
                await wait_for_death(self._process)

    async def leave(self) -> None:
        """Let it go on by itself: it is nobody's child soon."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
        if self._process is not None:
            self._process.returncode = 0  # or Popen warns of a child that runs


def _failure(why: str) -> ControlError:
    return ControlError(f"the new program cannot take over: {why.removesuffix('.')}", code="cannot_upgrade")
