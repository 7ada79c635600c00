"""The receiving half of a datagram connection: the queue of what its handler has not received yet."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from anyio import BusyResourceError, EndOfStream

from esockd_core._connection.datagram_face import DatagramConnection
from esockd_core._connection.driven import DrivenConnection
from esockd_core._stats.counters import Dropped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterator

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.peers import Sender
    from esockd_core._connection.site import Site

FOREIGN_PART: Final = 4  # of the queue, the fourth part, is for datagrams from other addresses


class ForeignDatagram(bytes):
    """A datagram that carries the id of a session and came from another address.

    Attributes:
        sender: Where it came from.
    """

    sender: Sender


class DatagramReceiving(DrivenConnection, DatagramConnection):
    """The receiving half of a datagram connection; see `DrivenConnection`."""

    __slots__ = (
        "_datagram",
        "_finished",
        "_foreign",
        "_iterates",
        "_more",
        "_queued_bytes",
        "_sender",
        "_unread",
        "datagrams_in",
    )

    def __init__(self, site: Site, driver: AnyDriver) -> None:
        DrivenConnection.__init__(self, site, driver)
        self._iterates = False  # whether the receiving task is in an iteration, which a drain ends
        self._datagram: bytes | None = None  # the first that waits for the handler; most often it is the only one
        self._more: deque[bytes] | None = None  # those after it
        self._queued_bytes = 0  # of these
        self._unread = 0  # dropped at its end
        self._sender: Sender | None = None  # of the datagram that was received last, from another address
        self._foreign = 0  # such datagrams and their bytes: no sign of life until they are accepted
        self._finished = False
        self.datagrams_in = 0

    # Datagrams come

    def deliver(self, datagram: bytes) -> None:
        """Give a datagram to the handler."""
        self.datagrams_in += 1
        self.bytes_in += len(datagram)
        self.driver.data_received(self, datagram)

    def keep(self, datagram: bytes) -> bool:
        """Keep a datagram until the handler receives it, or drop it if too many are kept; return whether it is kept."""
        if self._datagram is None:
            self._datagram = datagram
        else:
            more, options = self._more, self._site.options
            waiting = 1 if more is None else len(more) + 1
            queued_bytes = self._queued_bytes + len(datagram)
            if waiting >= options.udp.queue_datagrams or queued_bytes > options.read_buffer_bytes:
                self.datagrams_in -= 1
                self.bytes_in -= len(datagram)
                self._site.counters.count_dropped(Dropped.QUEUE_FULL)
                return False
            self._queued_bytes = queued_bytes
            if more is None:
                self._more = deque((datagram,))
            else:
                more.append(datagram)
        if self._receiver is not None:
            self._wake_receiver()
        return True

    def deliver_foreign(self, datagram: bytes, sender: Sender) -> None:
        """Give the handler a datagram with the id of this session that came from another address.

        Until the handler accepts it, it is no sign of life, and only a part of the queue is for such datagrams:
        whoever has seen an id on the way can send them.
        """
        if self.datagrams_waiting() * FOREIGN_PART >= self._site.options.udp.queue_datagrams:
            self._site.counters.count_dropped(Dropped.QUEUE_FULL)
            return
        self.datagrams_in += 1
        self.bytes_in += len(datagram)
        if self.driver.receives:
            found = ForeignDatagram(datagram)
            found.sender = sender
            if self.keep(found):
                self._foreign += 1 + len(datagram)
            return
        self._foreign += 1 + len(datagram)
        self._sender = sender
        try:
            self.driver.data_received(self, datagram)
        finally:
            self._sender = None

    def refuse_foreign(self, datagram: bytes) -> None:
        """Drop the datagram from another address that was just received, because nobody can tell whose it is."""
        self.datagrams_in -= 1
        self.bytes_in -= len(datagram)
        self._foreign -= 1 + len(datagram)
        self._sender = None
        self._site.counters.count_dropped(Dropped.NOT_MOVED)

    # The handler takes them

    def take_waiting(self) -> Iterator[bytes]:
        """Take the datagrams that wait, one by one; `sender` tells of each where it came from."""
        while self._datagram is not None:
            yield self._take()

    def _take(self) -> bytes:
        """Take the first datagram, which is there."""
        datagram = self._take_first()
        if type(datagram) is bytes:
            self._sender = None
            return datagram
        self._sender = datagram.sender  # type: ignore[attr-defined] # a ForeignDatagram
        return bytes(datagram)

    def _take_first(self) -> bytes:
        datagram, more = self._datagram, self._more
        if more is None:
            self._datagram = None
        else:
            self._datagram = following = more.popleft()
            self._queued_bytes -= len(following)
            if not more:
                self._more = None
        return datagram  # type: ignore[return-value]

    def receive(self) -> Coroutine[Any, Any, bytes]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._receive(EndOfStream)  # without another coroutine around it, for each datagram

    async def _receive(self, end: type[Exception] = StopAsyncIteration) -> bytes:
        iterates = end is StopAsyncIteration
        if self._datagram is not None and self._receiver is None:
            await self._checkpoint()
        while self._datagram is None:
            if self._receiver is not None or self._closing or not self.driver.receives:
                if self._finished and self._receiver is None:
                    raise end
                raise self._cannot_receive()
            if self.draining and (iterates or await self._end_for_drain()):
                if iterates:
                    raise end
                continue
            self._iterates = iterates
            await self._wait_for_input()
            self._unyielded = 0
        if self._receiver is not None:
            raise self._cannot_receive()
        return self._take()

    __anext__ = _receive  # again in a class with a `_receive` of its own; another call would cost as much as a wait

    @abstractmethod
    def _wait_for_input(self) -> Awaitable[None]:
        """Set `_receiver` and return when `_wake_receiver` is called."""

    def _cannot_receive(self) -> Exception:
        if not self.driver.receives:
            return RuntimeError(
                "a callback handler gets its datagrams by data_received(); receive() is for coroutine handlers"
            )
        return self._closed_error() if self._receiver is None else BusyResourceError("receiving from")

    # What is in the queue

    def datagrams_waiting(self) -> int:
        """How many datagrams wait for the handler to receive them."""
        more = self._more
        return 0 if self._datagram is None else 1 if more is None else len(more) + 1

    def datagrams_taken(self) -> int:
        """How many datagrams the handler has taken."""
        return self.datagrams_in - self.datagrams_waiting() - self._unread

    @property
    def has_finished(self) -> bool:
        return self._finished

    def _taken_by_handler(self) -> int:
        return self.datagrams_taken()

    def _has_untaken(self) -> bool:
        return self._datagram is not None

    def _waits_for_drain(self) -> bool:
        return self._iterates or super()._waits_for_drain()

    def _drop_unread(self) -> None:
        if number := self.datagrams_waiting():
            self._unread += number
            self._datagram = self._more = None
            self._site.counters.count_dropped(Dropped.UNREAD, number)
