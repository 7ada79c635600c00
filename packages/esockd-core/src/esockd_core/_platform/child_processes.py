"""Children of this process: their death, and their own when the parent dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
LOOK_EVERY_S: Final = 0.05


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends (prctl(2); Linux).

    On other systems nothing happens. The caller has to notice the end of its parent in another way too.

    Args:
        parent: The process id of the parent. If it has died already, this process ends now.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


async def wait_for_death(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status of a child when it has ended; minus the signal if one killed it."""
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):
            descriptor = os.pidfd_open(process.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
    while (status := process.poll()) is None:  # noqa: ASYNC110 (the kernel does not tell otherwise)
        await anyio.sleep(LOOK_EVERY_S)
    return status


def available_processors() -> tuple[int, ...]:
    """The processors that this process may run on, by number where the system has numbers for them."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def pin_to(processors: Iterable[int]) -> bool:
    """Let this process run on these processors only; return whether the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, processors)
    return True
