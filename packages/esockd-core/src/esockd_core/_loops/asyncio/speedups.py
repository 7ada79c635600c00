"""The methods of streams in C, where the distribution esockd-speedups is installed.

They change no behaviour, and leave everything unusual to the methods in Python. Where the distribution is missing, is
another one than this version of core knows, or does not find what it needs, the methods in Python do all.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import Context
from typing import Any, Final

from anyio import EndOfStream

from esockd_core._connection.face import READ_BYTES
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._loops.asyncio.cancellation import current_task, scoped_tasks
from esockd_core._loops.asyncio.resuming import resume
from esockd_core._loops.asyncio.side import AsyncioSide
from esockd_core._loops.asyncio.stream import HALF_A_TURN, AsyncioStream

SWITCH: Final = "ESOCKD_SPEEDUPS"  # an environment variable, which `0` switches off
KNOWN_INTERFACE: Final = 1


class NoLoop:
    """Enough of an event loop for a future that nobody waits for."""

    def get_debug(self) -> bool:
        """Futures ask this when they are made."""
        return False


def install() -> bool:
    """Use the methods in C, if there are any; return whether they are used."""
    if os.environ.get(SWITCH) == "0" or type(scoped_tasks) is not dict:
        return False
    try:
        import esockd_speedups  # noqa: PLC0415 - only where it is wanted

        if getattr(esockd_speedups, "INTERFACE", None) != KNOWN_INTERFACE:  # of an empty folder, which is a package too
            return False
        loop: Any = NoLoop()
        methods = esockd_speedups.bind(
            stream=AsyncioStream,
            side=AsyncioSide,
            future=asyncio.Future(loop=loop),
            callback=id,
            context=Context(),
            scoped_tasks=scoped_tasks,
            current_task=current_task,
            resume=resume,
            end_of_stream=EndOfStream,
            read_bytes=READ_BYTES,
            yield_every=YIELD_EVERY,
            half_a_turn=HALF_A_TURN,
        )
    except ImportError:
        return False
    for name, method in methods.items():
        setattr(AsyncioStream, name, method)
    return True


IN_USE: Final = install()
