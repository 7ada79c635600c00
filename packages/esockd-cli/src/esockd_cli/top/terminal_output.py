"""Bytes that have to reach a terminal now, although its descriptor does not block."""

from __future__ import annotations

import os
import select
import termios
import time
from typing import Final

PATIENCE_S: Final = 1.0
PAUSE_S: Final = 0.001


def write_within(terminal: int, data: bytes, seconds: float) -> bool:
    """Write bytes to a terminal within a time, and say whether all were written.

    Raises:
        OSError: The terminal is gone.
    """
    deadline = time.monotonic() + seconds
    while data and (left := deadline - time.monotonic()) > 0:
        try:
            data = data[os.write(terminal, data) :]
        except BlockingIOError:
            # Its buffer is full, or another process is writing at this moment: Linux gives EAGAIN for both, and
            # select(2) waits only for the first. The shell writes just when a program of it was killed.
            select.select([], [terminal], [], left)
            time.sleep(PAUSE_S)
    return not data


def write_past_all(terminal: int, data: bytes) -> None:
    """Write bytes to a terminal, which loses what it has not taken after a second in favour of them.

    Raises:
        OSError: The terminal is gone.
        termios.error: The terminal is gone.
    """
    if not write_within(terminal, data, PATIENCE_S):
        termios.tcflush(terminal, termios.TCOFLUSH)
        write_within(terminal, data, PATIENCE_S)
