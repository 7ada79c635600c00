"""The sockets of one datagram listener, and the readers on them, which go on while the listener takes no new peers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from esockd_core._listening.intake import Intake
from esockd_core._loops.carrier import open_datagram_carrier

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

    from esockd_core._admission.gate import Gate
    from esockd_core._listening.acceptors import Acceptors
    from esockd_core._loops.carrier import Carrier
    from esockd_core._loops.datagram import DatagramCarrier
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._sockets.opening import ListeningSockets


class DatagramIntake(Intake):
    """Opens, closes and exchanges the sockets of a datagram listener.

    All peers share these sockets, so they are read until the listener has closed: while it is suspended or drains, only
    new peers are turned away.
    """

    _datagrams: DatagramCarrier | None = None
    _is_reading = False

    def queue(self) -> tuple[int, int] | None:
        """There is no queue of clients."""
        return None

    def open_carrier(self, gate: Gate) -> AbstractAsyncContextManager[DatagramCarrier]:  # noqa: ARG002
        """The carrier for the running event loop; handlers live within its context."""
        return open_datagram_carrier(self._site)

    def attach(self, carrier: Carrier, task_group: TaskGroup) -> None:
        """Set the carrier that reads, and the task group in which readers run."""
        super().attach(carrier, task_group)
        self._datagrams = cast("DatagramCarrier", carrier)
        if self._sockets is not None:
            self._datagrams.use_sockets(self._sockets.sockets)

    def _use(self, sockets: ListeningSockets, acceptors: Acceptors | None = None) -> None:
        super()._use(sockets, acceptors)
        if self._datagrams is not None:
            self._datagrams.use_sockets(sockets.sockets)
            self._read()

    def _look_at_sockets(self) -> None:
        """Nothing of them is inherited by connections."""

    async def _vacate(self) -> None:
        """Take the datagrams that wait at the sockets, and close these.

        Datagrams that come between the close of one socket and the opening of the next one are lost.
        """
        try:
            await super().stop()
            self._is_reading = False
            if self._sockets is not None and self._datagrams is not None:
                with suppress(OSError):  # of a socket that failed
                    await self._datagrams.serve_queued(self._sockets.sockets[0], 0)
                await self._datagrams.leave_sockets()
        except BaseException:
            self._read()
            raise
        self.close()

    def _set_on(self, sock: socket.socket, new: ListenerOptions, old: ListenerOptions) -> None:  # noqa: ARG002
        new.udp.apply(sock)

    def _warn_of_caps(self, sock: socket.socket) -> None:
        self._site.options.udp.warn_of_capped_buffers(sock)

    def start(self) -> None:
        """Take new peers."""
        self._site.takes_new_peers = True
        self._read()

    async def stop(self) -> None:
        """Take no new peers. Their datagrams are dropped, because the kernel cannot keep them apart from others."""
        self._site.takes_new_peers = False

    async def finish(self) -> None:
        """Take no new peers. The sockets stay open for those that are there.

        Once another program has taken them over, it has all that comes, and this one only sends.
        """
        await self.stop()
        if self.is_left:
            await super().stop()
            self._is_reading = False

    def _read(self) -> None:
        if not self._is_reading and self._sockets is not None:
            self._is_reading = True
            super().start()
