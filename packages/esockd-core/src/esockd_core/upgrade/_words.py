"""What the two programs of an upgrade say to each other, over a socket pair that the new one inherits.

    before -> new    {"sockets": [...], "pid": 1}     in the pair when the new one starts
    new -> before    {"says": "ready"}                its listeners are open, and suspended
    before -> new    {"says": "go"}                   its control socket accepts nobody any more
    new -> before    {"says": "done"}                 its listeners accept, and its control socket
    before           closes its end                   it accepts nobody any more

Instead of a word the new one may say {"error": text}.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream

VARIABLE: Final = "ESOCKD_UPGRADE"
"""Has the number of the descriptor of the pair."""

READY: Final = "ready"
GO: Final = "go"
DONE: Final = "done"
ANSWER_S: Final = 30.0  # for the other one to go on; a busy machine starts workers slowly
LONGEST: Final = 1 << 20


def write(**message: Any) -> bytes:
    """A message."""
    return json.dumps(message).encode() + b"\n"


class Lines:
    """The messages of a stream.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: ByteReceiveStream) -> None:
        self._stream = stream
        self._left = b""

    async def next(self) -> dict[str, Any] | None:
        """The next message; None if the other program has ended, or says something else."""
        while b"\n" not in self._left:
            try:
                self._left += await self._stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return None
            if len(self._left) > LONGEST:
                return None
        line, _, self._left = self._left.partition(b"\n")
        return read(line)


def read(line: bytes) -> dict[str, Any] | None:
    """A message; None if it is none."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
