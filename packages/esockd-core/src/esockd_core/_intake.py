"""Where clients come in: the listening sockets of one listener, and the acceptors on them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from esockd_core._acceptors import Acceptor, Acceptors
from esockd_core._connection import READ_BYTES
from esockd_core._errors import CannotBind
from esockd_core._sockets import ListeningSockets, open_sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from esockd_core._address import Address
    from esockd_core._options import ListenerOptions
    from esockd_core._service import Service
    from esockd_core._transports import Carrier

# tcp(7), struct tcp_info of linux/tcp.h: eight bytes, then 32-bit words, of which a listening socket uses two for its
# queue (net/ipv4/tcp.c, tcp_get_info): tcpi_unacked is its length, tcpi_sacked its limit.
TCP_INFO_QUEUE: Final = struct.Struct("=8x4x4x4x4xII")


class Intake:
    """Opens, closes and exchanges listening sockets, and starts and stops accepting on them.

    Args:
        service: What accepted clients become connections of.
        on_failure: Called with the error when accepting cannot go on.
    """

    def __init__(self, service: Service, on_failure: Callable[[Exception], None]) -> None:
        self._service = service
        self._on_failure = on_failure
        self._sockets: ListeningSockets | None = None
        self._acceptors: Acceptors | None = None
        self._carrier: Carrier | None = None
        self._task_group: TaskGroup | None = None

    @property
    def is_open(self) -> bool:
        """Whether there are listening sockets."""
        return self._sockets is not None

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the sockets are bound to."""
        return self._sockets.addresses if self._sockets is not None else ()

    @property
    def port(self) -> int | None:
        """The port that all of them share."""
        return self._sockets.port if self._sockets is not None else None

    @property
    def acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors, one or more for each socket."""
        return tuple(self._acceptors.acceptors) if self._acceptors is not None else ()

    def queue(self) -> tuple[int, int] | None:
        """How many clients wait to be accepted, and how many may; None for Unix sockets or when closed."""
        length = limit = 0
        for listening in self._sockets.sockets if self._sockets is not None else ():
            if listening.family == socket.AF_UNIX:
                return None
            info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_QUEUE.size)
            queued, most = TCP_INFO_QUEUE.unpack(info)
            length, limit = length + queued, limit + most
        return (length, limit) if limit else None

    # Sockets

    async def open(self, address: Address) -> None:
        """Open the sockets of an address.

        Raises:
            AddressInUse: Somebody else listens there.
            CannotBind: The address cannot be opened.
            InvalidOption: An option does not apply to the address.
        """
        self._use(await self.open_sockets(address))

    async def open_sockets(self, address: Address) -> ListeningSockets:
        """Open the sockets of an address without using them yet; see `open`."""
        options = self._service.options
        return await open_sockets(address, options.tcp, options.unix)

    def attach(self, carrier: Carrier, task_group: TaskGroup) -> None:
        """Say what carries the clients, and where the acceptors run."""
        self._carrier = carrier
        self._task_group = task_group

    def _use(self, sockets: ListeningSockets) -> None:
        self._sockets = sockets
        self._look_at_sockets()

    def _look_at_sockets(self) -> None:
        if self._sockets is None:
            return
        # Read from the socket: what is inherited may be of any family.
        first, tcp, service = self._sockets.sockets[0], self._service.options.tcp, self._service
        service.admission.is_inet = is_inet = first.family != socket.AF_UNIX
        service.read_bytes = tcp.read_chunk_bytes(first, READ_BYTES)
        buffers = (tcp.receive_buffer_bytes, tcp.send_buffer_bytes)
        service.sets_socket_options = not tcp.nodelay if is_inet else any(buffers)

    async def replace(self, place: Address, fresh: ListeningSockets | None) -> None:
        """Serve who waits at the old sockets, close them, and use new ones.

        Args:
            place: The address of the new sockets.
            fresh: The new sockets, if they could be opened before the old ones were closed.

        Raises:
            AddressInUse: Somebody else listens there; nothing listens now.
            CannotBind: The address cannot be opened; likewise.
        """
        try:
            await self.finish()
        except BaseException:
            if fresh is not None:
                fresh.close()
            raise
        self._use(fresh or await self.open_sockets(place))

    def set_socket_options(self, old: ListenerOptions) -> None:
        """Let the options in force hold for the sockets that are open, and so for connections to come.

        Args:
            old: What was in force before; it is again when the kernel refuses.

        Raises:
            CannotBind: The kernel refuses an option.
        """
        if self._sockets is None:
            return
        options = self._service.options
        try:
            for listening in self._sockets.sockets:
                options.tcp.apply_to_listener(listening)
                if options.tcp.backlog != old.tcp.backlog:
                    listening.listen(options.tcp.backlog)  # listen(2): again, for another length of the queue
        except OSError as error:
            for listening in self._sockets.sockets:
                with suppress(OSError):
                    old.tcp.apply_to_listener(listening)
                    listening.listen(old.tcp.backlog)
            raise CannotBind(error.errno, f"the kernel refuses an option of the socket: {error.strerror}") from error
        options.tcp.warn_of_capped_backlog()
        self._look_at_sockets()

    # Accepting

    def make_acceptors(self) -> Acceptors:
        """Make the acceptors that the options ask for, without starting them.

        Raises:
            OSError: There are no descriptors left for them.
        """
        if self._sockets is None or self._carrier is None:
            raise AssertionError("there is nothing to accept on")
        return Acceptors(self._service.name, self._sockets, self._carrier, self._service.options.acceptors)

    def start(self) -> None:
        """Accept."""
        if self._acceptors is None:
            self._acceptors = self.make_acceptors()
        if self._task_group is None:
            raise AssertionError("there is nowhere to accept")
        self._acceptors.start(self._task_group, self._on_failure)

    async def stop(self) -> None:
        """Stop accepting; clients wait in the kernel's queue."""
        if self._acceptors is not None:
            await self._acceptors.stop()

    async def exchange_acceptors(self, fresh: Acceptors, *, running: bool) -> None:
        """Stop the acceptors, and go on with others."""
        await self.stop()
        if self._acceptors is not None:
            self._acceptors.close()
        self._acceptors = fresh
        if running:
            self.start()

    async def finish(self) -> None:
        """Stop accepting, take who waits in the kernel's queue already, and close the sockets."""
        await self.stop()
        for listening in self._sockets.sockets if self._sockets is not None else ():
            if self._carrier is not None:
                with suppress(OSError):  # the failure that brought the listener here
                    await self._carrier.serve_queued(listening)
        self.close()

    def close(self) -> None:
        """Close the sockets, whoever waits."""
        if self._acceptors is not None:
            self._acceptors.close()
            self._acceptors = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
