"""Whether a handler runs where its bytes came, and as which task."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from esockd_core._loops.asyncio.resuming import resume

try:
    from esockd_speedups import resuming
except ImportError:

    def resuming() -> int:
        return 0


if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from anyio.abc import SocketStream


def callers() -> list[types.CodeType]:
    found = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        found.append(frame.f_code)
        frame = frame.f_back
    return found


def times_resumed() -> int:
    """How many resumed tasks the caller runs within: by Python, and by esockd-speedups where it is installed."""
    return callers().count(resume.__code__) + resuming()


def is_resumed() -> bool:
    """Whether the caller runs where its bytes came, and not in a step of its task."""
    return times_resumed() > 0


def same_task() -> Callable[[], None]:
    task = asyncio.current_task()

    def check() -> None:
        assert asyncio.current_task() is task is not None

    return check


async def ask(client: SocketStream, question: bytes = b"?\n") -> bytes:
    await client.send(question)
    return await client.receive()
