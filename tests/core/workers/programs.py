"""Handlers and functions that workers import in these tests."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from esockd_core.workers._admission import SharedAdmission

if TYPE_CHECKING:
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

    def stopping(self: SharedAdmission, host: str) -> Denial | None:
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
    """Make a handler, unless a file says that the code is broken."""
    if Path(folder, "broken").exists():
        raise RuntimeError("the code is broken")
    return echo


def slow_if_told(folder: str) -> Handler:
    """Make a handler; if there is a file, that takes longer than any test may."""
    if Path(folder, "slow").exists():
        Path(folder, "starting").touch()
        time.sleep(600)
    return echo


def note_setup(folder: str) -> None:
    """Leave a file for each process."""
    Path(folder, str(os.getpid())).touch()
