"""What is between the two ends of a connection in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


class Wire:
    """Both directions of a connection; whoever changes something calls `change`, whoever waits looks again after it.

    Args:
        look: Called at each change, before those that wait.

    Attributes:
        incoming: What the peer sent and the connection has not received.
        outgoing: What the connection sent and the peer has not received.
        peer_finished: The peer sends no more (FIN).
        peer_gone: The peer closed; what is sent to it now, it answers with a reset.
        peer_reset: The peer reset the connection (RST).
        finished: The connection sends no more.
        reset: The connection was closed over what it had not received, and the kernel reset it.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._changed = anyio.Event()
        self.incoming: bytearray = bytearray()
        self.outgoing: bytearray = bytearray()
        self.peer_finished = False
        self.peer_gone = False
        self.peer_reset = False
        self.finished = False
        self.reset = False

    def change(self) -> None:
        """Let everybody look at what has changed."""
        self._look()
        self.wake()

    def wake(self) -> None:
        """Let those that wait look, and nobody else."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        """Return at the next change."""
        await self._changed.wait()


def take(buffer: bytearray, max_bytes: int) -> bytes:
    """Take the first bytes out of a buffer."""
    data = bytes(buffer[:max_bytes])
    del buffer[:max_bytes]
    return data
