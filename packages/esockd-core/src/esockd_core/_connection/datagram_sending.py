"""The sending half of a datagram connection: one at a time, or several in trains."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, Protocol

from anyio import WouldBlock

from esockd_core._connection.datagram_receiving import DatagramReceiving
from esockd_core._connection.names import as_bytes, text_of_name
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._errors import DatagramTooLong
from esockd_core._platform.segmentation import MAX_SEGMENTS, MAX_TRAIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from esockd_core._connection.peers import SharedSocket
    from esockd_core._tls.facts import TlsInfo

FULL: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class DatagramLayer(Protocol):
    """What lies between the datagrams on the wire and those of the handler."""

    @property
    def info(self) -> TlsInfo | None:
        """The TLS that it speaks; None before it does."""
        ...

    def received(self, connection: Any, datagram: bytes) -> None:
        """The peer sent a datagram. What is in it for the handler goes to `connection.deliver`."""

    def send(self, connection: Any, data: bytes) -> bool:
        """The handler sends a datagram. Give what goes to the wire to `connection.transmit`, and return its answer."""
        ...

    def close(self, connection: Any) -> None:
        """This side closes in order, and may tell the peer."""


class DatagramSending(DatagramReceiving):
    """The sending half of a datagram connection; `DatagramBase` has its slots."""

    __slots__ = ()

    address: Any
    layer: DatagramLayer | None
    port: SharedSocket

    async def send(self, item: bytes) -> None:
        if self._unyielded >= YIELD_EVERY or self._may_be_cancelled():
            await self._checkpoint()
        else:
            self._unyielded += 1
        if type(item) is not bytes:
            item = as_bytes(item)
        while not self._write(item):
            await self.port.wait_writable()
            self._unyielded = 0

    def send_nowait(self, data: bytes) -> None:
        if not self._write(data if type(data) is bytes else as_bytes(data)):
            self._site.counters.count_unsent(BlockingIOError(errno.EAGAIN, "the send buffer is full"))
            raise WouldBlock

    def _write(self, data: bytes) -> bool:
        """Send a datagram; return False if there is no room for it now."""
        if self._closing:
            raise self._closed_error()
        if self.layer is None:
            try:
                self.port.sendto(data, self.address)
            except OSError as error:
                if not self._was_taken(data, error):
                    return False
        elif not self.layer.send(self, data):
            return False
        self.bytes_out += len(data)
        self.datagrams_out += 1
        return True

    def transmit(self, datagram: bytes) -> bool:
        """Give a datagram to the kernel. One that the kernel refuses is counted, and lost like any other on its way.

        Returns:
            Whether the kernel had room for it.

        Raises:
            DatagramTooLong: If no datagram to the peer may be as long.
        """
        try:
            self.port.sendto(datagram, self.address)
        except OSError as error:
            return self._was_taken(datagram, error)
        return True

    def _was_taken(self, datagram: bytes, error: OSError) -> bool:
        """Look at an error of sending, and return whether the datagram is done with."""
        if error.errno in FULL:
            return False
        if error.errno == errno.EMSGSIZE:
            reason = f"it has {len(datagram)} bytes, more than a datagram to {text_of_name(self.peername)} may have"
            raise DatagramTooLong(reason, option="datagram") from error
        self._site.counters.count_unsent(error)
        return True

    async def send_many(self, items: Iterable[bytes]) -> None:
        left = [as_bytes(item) for item in items]
        while True:
            if self._unyielded >= YIELD_EVERY or self._may_be_cancelled():
                await self._checkpoint()
            else:
                self._unyielded += 1
            left = left[self._write_many(left) :]
            if not left:
                return
            await self.port.wait_writable()
            self._unyielded = 0

    def send_many_nowait(self, items: Iterable[bytes]) -> int:
        datagrams = [as_bytes(item) for item in items]
        sent = self._write_many(datagrams)
        if sent < len(datagrams):
            error = BlockingIOError(errno.EAGAIN, "the send buffer is full")
            self._site.counters.count_unsent(error, len(datagrams) - sent)
        return sent

    def _write_many(self, datagrams: Sequence[bytes]) -> int:
        """Send datagrams, and return how many there was room for."""
        if self._closing:
            raise self._closed_error()
        sent = 0
        may_train = self.layer is None and self.port.takes_trains
        for train in trains(datagrams) if may_train else ((each,) for each in datagrams):
            if len(train) > 1:
                try:
                    self.port.send_train(train, self.address)
                except OSError as error:
                    if error.errno in FULL:
                        return sent
                    # Such as segments that are longer than the way's MTU: each may travel alone, in fragments.
                else:
                    self.bytes_out += sum(map(len, train))
                    self.datagrams_out += len(train)
                    sent += len(train)
                    continue
            for each in train:
                if not self._write(each):
                    return sent
                sent += 1
        return sent


def trains(datagrams: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split datagrams into those that the kernel takes in one call, in their order.

    Each but the last of a train has the same size, and the last is not longer and not empty (udp(7), UDP_SEGMENT).
    """
    begin = 0
    while begin < len(datagrams):
        size = len(datagrams[begin])
        most = min(MAX_SEGMENTS, MAX_TRAIN_BYTES // size) if size else 1
        end = begin + 1
        while end < len(datagrams) and end - begin < most and 0 < len(datagrams[end]) <= size:
            end += 1
            if len(datagrams[end - 1]) < size:
                break
        yield datagrams[begin:end]
        begin = end
