"""Other programs that run for a test."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence


@asynccontextmanager
async def running(
    command: list[str], entries: Sequence[socket.socket] = (), environment: dict[str, str] | None = None
) -> AsyncIterator[None]:
    """A program that inherits listening sockets, until the block ends."""
    descriptors = [entry.fileno() for entry in entries]
    program = await anyio.open_process(
        command, stdout=None, stderr=None, pass_fds=descriptors, env={**os.environ, **(environment or {})}
    )
    async with program:
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                program.terminate()
