"""The socket pair between a worker and its parent, over which they speak as over a control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from esockd_core._listening.audited import told_elsewhere
from esockd_core._remote.changes import Changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import SocketStream

    from esockd_core._platform.peer_process import PeerProcess
    from esockd_core._remote.changes import Call
    from esockd_core.control.interface import ListenerControl


class Pipe:
    """A worker's end of the pair, for a `Session`.

    Args:
        stream: The end.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._ending = anyio.Event()

    @property
    def draining(self) -> bool:
        """Whether the worker ends."""
        return self._ending.is_set()

    def end(self) -> None:
        """Note that the worker ends."""
        self._ending.set()

    async def wait_draining(self) -> None:
        """Return when the worker ends."""
        await self._ending.wait()

    async def receive(self) -> bytes:
        """The next bytes of the parent."""
        return await self._stream.receive()

    async def send(self, data: bytes) -> None:
        """Send bytes to the parent."""
        await self._stream.send(data)

    def abort(self, reason: str) -> None:  # noqa: ARG002 (as of a connection)
        """Note that the parent speaks another language."""
        self._ending.set()


class UntoldChanges(Changes):
    """Makes changes that the parent has logged for all workers."""

    async def make(
        self,
        control: ListenerControl,  # noqa: ARG002 (as of `Changes`)
        method: str,  # noqa: ARG002
        given: Mapping[str, object],  # noqa: ARG002
        call: Call,
        peer: PeerProcess | None,  # noqa: ARG002
    ) -> object:
        """Make a change."""
        with told_elsewhere():
            return await call()
