"""Handlers and functions that workers import in these tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.patience import PATIENCE_S

from esockd_core.workers._admission import SharedAdmission

if TYPE_CHECKING:
    from collections.abc import Hashable

    from esockd_core import Handler, PeerName, StreamConnection
    from esockd_core._admission.denial import Denial


async def echo(connection: StreamConnection) -> None:
    """Send back what comes; some words do something to the worker."""
    async for data in connection:
        match data:
            case b"pid":
                await connection.send(str(os.getpid()).encode())
            case b"crash":
                os._exit(1)
            case b"stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case b"block":
                connection.send_nowait(b"blocked")
                time.sleep(60)  # noqa: ASYNC251 (that is the point)
            case _:
                await connection.send(data)


def stop_with_the_lock(folder: str) -> None:
    """Let the first worker that judges a client, once there is a file, stop in the middle of it."""
    judge = SharedAdmission._take_limits

    def stopping(self: SharedAdmission, host: str) -> Denial | Hashable | None:
        with suppress(OSError):
            Path(folder, "stop").unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        return judge(self, host)

    SharedAdmission._take_limits = stopping  # type: ignore[method-assign]


def no_room(peer: PeerName) -> bool:
    """Say that there is no room for a client, or fail for one of 127.0.0.9."""
    if peer[0] == "127.0.0.9":
        raise RuntimeError("the hook is broken")
    return False


async def other(connection: StreamConnection) -> None:
    """Say which handler it is."""
    async for _ in connection:
        await connection.send(b"other")


def named_echo(folder: str) -> Handler:
    """Make a handler, unless a file says that the code is broken, and how that shows."""
    broken = Path(folder, "broken")
    if broken.exists():
        match broken.read_text():
            case "exit":
                sys.exit("the code is broken")
            case "die":
                os._exit(1)
        raise RuntimeError("the code is broken")
    return echo


def broken_once_told(folder: str) -> Handler:
    """Make no handler: wait for a file that says that the code is broken."""
    Path(folder, "starting").touch()
    deadline = time.monotonic() + PATIENCE_S
    while not Path(folder, "broken").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return named_echo(folder)


def slow_if_told(folder: str) -> Handler:
    """Make a handler; if there is a file, that takes longer than any test may."""
    if Path(folder, "slow").exists():
        Path(folder, "starting").touch()
        time.sleep(600)
    return echo


def slow_echo(seconds: float) -> Handler:
    """Make a handler in some seconds."""
    time.sleep(seconds)
    return echo


def note_setup(folder: str) -> None:
    """Leave a file for each process."""
    Path(folder, str(os.getpid())).touch()
