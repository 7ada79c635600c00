"""The listening sockets of one listener, and the acceptors on them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeAlias

import anyio

from esockd_core._address import Address
from esockd_core._connection.face import READ_BYTES
from esockd_core._errors import CannotBind, ListenerClosed
from esockd_core._listening.acceptors import Acceptors
from esockd_core._loops.carrier import open_carrier
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._platform.socket_queues import accept_queue
from esockd_core._sockets.opening import ListeningSockets, open_sockets

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

    from esockd_core._admission.admission import Admission
    from esockd_core._admission.gate import Gate
    from esockd_core._connection.site import Site
    from esockd_core._loops.carrier import Carrier
    from esockd_core._options.listener import ListenerOptions
    from esockd_core.control.values import Acceptor


Opener: TypeAlias = Callable[[Address, TcpOptions, UnixOptions, UdpOptions], Awaitable[ListeningSockets]]


class Intake:
    """Opens, closes and exchanges listening sockets, and starts and stops accepting on them.

    Args:
        site: The parts of the listener that accepted connections use.
        admission: Judges their peers.
        on_failure: Called with the error if accepting cannot continue.
        opener: Opens the sockets of an address.

    Attributes:
        leaves_queue: Whether queued clients are left to another process that has the sockets too.
    """

    def __init__(
        self,
        site: Site,
        admission: Admission,
        on_failure: Callable[[Exception], None],
        opener: Opener = open_sockets,
    ) -> None:
        self._opener = opener
        self.leaves_queue = False
        self._site = site
        self._admission = admission
        self._on_failure = on_failure
        self._sockets: ListeningSockets | None = None
        self._acceptors: Acceptors | None = None
        self._carrier: Carrier | None = None
        self._task_group: TaskGroup | None = None
        self._opening: anyio.CancelScope | None = None
        self._gave_up = False
        self._context = copy_context()  # handlers start with it, whichever task resumes the listener
        self.last_port: int | None = None  # of the sockets that are open, or were until opening others failed

    @property
    def is_open(self) -> bool:
        """Whether there are listening sockets."""
        return self._sockets is not None

    @property
    def is_left(self) -> bool:
        """Whether what comes to the sockets is another program's: it has taken them over, or has only lent them."""
        return self._sockets is not None and (self._sockets.is_left or self._sockets.is_lent)

    def note_asked(self, address: Address) -> None:
        """Note the address that the sockets were asked for by: with port 0 where they have one of their own."""
        if self._sockets is not None:
            self._sockets.asked = str(address)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that the sockets are bound to."""
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
        """How many clients wait to be accepted, and how many may. None if closed, or if the kernel does not tell."""
        length = limit = 0
        for listening in self._sockets.sockets if self._sockets is not None else ():
            queue = accept_queue(listening)
            if queue is None:
                return None
            length, limit = length + queue[0], limit + queue[1]
        return (length, limit) if limit else None

    # Sockets

    async def open(self, address: Address) -> None:
        """Open the sockets of an address.

        Raises:
            AddressInUse: If somebody else listens there.
            CannotBind: If the address cannot be opened.
            InvalidOption: If an option does not apply to the address.
        """
        self._use(await self.open_sockets(address))

    async def open_sockets(self, address: Address) -> ListeningSockets:
        """Open the sockets of an address, but do not use them yet; see `open`.

        Raises:
            ListenerClosed: If `give_up_opening` was called meanwhile.
        """
        options = self._site.options
        with anyio.CancelScope() as self._opening:
            if self._gave_up:
                self._opening.cancel()
            return await self._opener(address, options.tcp, options.unix, options.udp)
        raise ListenerClosed(f"listener {self._site.name} was closed before it was open on {address}")

    def give_up_opening(self) -> None:
        """Stop opening sockets: resolving a name may take long, and nobody waits for it any more."""
        self._gave_up = True
        if self._opening is not None:
            self._opening.cancel()

    def open_carrier(self, gate: Gate) -> AbstractAsyncContextManager[Carrier]:
        """The carrier for the running event loop; handlers live within its context."""
        return open_carrier(self._site, gate)

    def attach(self, carrier: Carrier, task_group: TaskGroup) -> None:
        """Set the carrier that accepts, and the task group in which acceptors run."""
        self._carrier = carrier
        self._task_group = task_group
        self._context = copy_context()

    def _use(self, sockets: ListeningSockets, acceptors: Acceptors | None = None) -> None:
        with ExitStack() as stack:
            stack.callback(sockets.close)
            self._acceptors = acceptors or self.make_acceptors(sockets)
            stack.pop_all()
        self._sockets = sockets
        self.last_port = sockets.port
        self._look_at_sockets()

    def _look_at_sockets(self) -> None:
        if self._sockets is None:
            return
        # Read from the socket: what is inherited may be of any family.
        first, tcp, site = self._sockets.sockets[0], self._site.options.tcp, self._site
        self._admission.is_inet = is_inet = first.family != socket.AF_UNIX
        site.read_bytes = tcp.read_chunk_bytes(first, READ_BYTES)
        buffers = (tcp.receive_buffer_bytes, tcp.send_buffer_bytes)
        site.sets_socket_options = not tcp.nodelay if is_inet else any(buffers)

    async def replace(self, place: Address, fresh: ListeningSockets | None) -> None:
        """Serve the clients queued at the old sockets, close these, and use new ones.

        Args:
            place: The address of the new sockets.
            fresh: The new sockets, if they could be opened before the old ones are closed.

        Raises:
            AddressInUse: If somebody else listens there. Nothing listens now.
            CannotBind: If the address cannot be opened, with the same consequences.
        """
        acceptors = None
        with ExitStack() as stack:
            if fresh is not None:
                stack.callback(fresh.close)
                acceptors = self.make_acceptors(fresh)
                stack.callback(acceptors.close)
            await self._vacate()
            stack.pop_all()
        self._use(fresh or await self.open_sockets(place), acceptors)

    async def _vacate(self) -> None:
        """Serve the clients queued at the sockets and close these, because others take their place."""
        await self.finish()

    def set_socket_options(self, old: ListenerOptions) -> None:
        """Set the options in force on the open sockets.

        Args:
            old: The options before; they are set again if the kernel refuses.

        Raises:
            CannotBind: If the kernel refuses an option.
        """
        if self._sockets is None:
            return
        new = self._site.options
        try:
            for sock in self._sockets.sockets:
                self._set_on(sock, new, old)
        except OSError as error:
            for sock in self._sockets.sockets:
                with suppress(OSError):
                    self._set_on(sock, old, new)
            raise CannotBind(error.errno, f"the kernel refuses an option of the socket: {error.strerror}") from error
        self._warn_of_caps(self._sockets.sockets[0])
        self._look_at_sockets()

    def _set_on(self, sock: socket.socket, new: ListenerOptions, old: ListenerOptions) -> None:
        """Set options on a socket, from which new connections inherit them, in place of other ones."""
        new.tcp.apply_to_listener(sock)
        if new.tcp.backlog != old.tcp.backlog:
            sock.listen(new.tcp.backlog)  # listen(2): again, for another length of the queue

    def _warn_of_caps(self, sock: socket.socket) -> None:  # noqa: ARG002
        """Tell of an option that the kernel has made smaller."""
        self._site.options.tcp.warn_of_capped_backlog()

    # Accepting

    def make_acceptors(self, sockets: ListeningSockets | None = None) -> Acceptors:
        """Make the acceptors that the options ask for, but do not start them.

        Args:
            sockets: The sockets to accept on; None is the open ones.

        Raises:
            CannotBind: If there are not enough descriptors left for them.
        """
        sockets = sockets or self._sockets
        if sockets is None:
            raise AssertionError("there is nothing to accept on")
        return Acceptors(self._site.name, sockets, self._site.options.acceptors)

    def start(self) -> None:
        """Start accepting."""
        if self._acceptors is None or self._carrier is None or self._task_group is None:
            raise AssertionError("there is nothing to accept on, or nowhere")
        start = self._acceptors.start
        self._context.copy().run(start, self._carrier, self._task_group, self._on_failure)

    async def stop(self) -> None:
        """Stop accepting. Clients wait in the kernel's queue."""
        if self._acceptors is not None:
            await self._acceptors.stop()

    async def exchange_acceptors(self, fresh: Acceptors, *, running: bool) -> None:
        """Replace the acceptors by others."""
        await self.stop()
        if self._acceptors is not None:
            self._acceptors.close()
        self._acceptors = fresh
        if running:
            self.start()

    async def finish(self) -> None:
        """Stop accepting, serve the clients that are already queued, and close the sockets.

        Clients that come after this call are not waited for.
        """
        await self.stop()
        sockets = self._sockets.sockets if self._sockets is not None else ()
        leaves_queue = self.leaves_queue or self.is_left
        waiting = [] if leaves_queue else [(listening, self._queue_length(listening)) for listening in sockets]
        for listening, length in waiting:
            if self._carrier is not None:
                with suppress(OSError):  # the failure that brought the listener here
                    await self._carrier.serve_queued(listening, length)
        self.close()

    def _queue_length(self, listening: socket.socket) -> int:
        queue = accept_queue(listening)
        return self._site.options.tcp.backlog + 1 if queue is None else queue[0]  # listen(2): Linux lets one more wait

    def close(self) -> None:
        """Close the sockets, whether clients wait or not."""
        if self._acceptors is not None:
            self._acceptors.close()
            self._acceptors = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
