"""A program around a listener, run until it ends by itself."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from subprocess import CompletedProcess

PROGRAM = """
import socket, anyio
from esockd_core import CallbackHandler, open_listener

{handler}

async def main():
    async with open_listener("x", "{address}", handler) as listener:
{acts}
        await anyio.sleep_forever()

try:
    anyio.run(main, backend="{backend}", backend_options={options})
except {caught}:
    print("ended")
"""


def run_host_program(
    loop: str, *, handler: str, acts: str, address: str = "127.0.0.1:0", caught: str = "()"
) -> CompletedProcess[str]:
    """Run a program that opens a listener, acts, and waits for ever: only its handler can end it.

    Args:
        loop: The event loop.
        handler: Source that defines `handler`.
        acts: Source of what the program does once `listener` is open, such as connecting to it.
        address: Where it listens.
        caught: The exceptions around all of it after which it prints that it has ended.

    Raises:
        TimeoutExpired: If it has not ended.
    """
    program = PROGRAM.format(
        handler=dedent(handler),
        address=address,
        acts=indent(dedent(acts), " " * 8),
        backend="trio" if loop == "trio" else "asyncio",
        options={"use_uvloop": True} if loop == "uvloop" else {},
        caught=caught,
    )
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
