"""The wire between the two ends of a connection in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


class Wire:
    """Both directions of a connection. Code that changes something calls `change`, and waiting tasks look again then.

    Args:
        look: Called at each change, before waiting tasks are woken.

    Attributes:
        incoming: Bytes that the peer sent and the connection has not received.
        outgoing: Bytes that the connection sent and the peer has not received.
        peer_finished: Whether the peer has finished sending (FIN).
        peer_gone: Whether the peer has closed. It answers further bytes with a reset.
        peer_reset: Whether the peer has reset the connection (RST).
        finished: Whether the connection has finished sending.
        reset: Whether the connection was closed over unread bytes, so that the kernel reset it.
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
        """Call `look` and wake all waiting tasks."""
        self._look()
        self.wake()

    def wake(self) -> None:
        """Wake all waiting tasks, and nothing else."""
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
