"""The sending half of a datagram connection: one at a time, or several in trains."""

from __future__ import annotations

import errno
from itertools import islice
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
SEALING_BYTES: Final = 128  # more than any cipher of DTLS 1.2 adds to a datagram; AES-GCM adds 37


class DatagramLayer(Protocol):
    """What lies between the datagrams on the wire and those of the handler."""

    @property
    def info(self) -> TlsInfo | None:
        """The TLS that it speaks; None before it does."""
        ...

    def received(self, connection: Any, datagram: bytes) -> None:
        """The peer sent a datagram. What is in it for the handler goes to `connection.deliver`."""

    def seal(self, connection: Any, data: bytes) -> bytes:
        """The datagram that goes to the wire for one that the handler sends.

        Those of equal size become equal in size, and a shorter one does not become longer than they are.
        """
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
        # What `_write` does, without its call.
        if self._closing:
            raise self._closed_error()
        if type(data) is not bytes:
            data = as_bytes(data)
        sealed = data if self.layer is None else self.layer.seal(self, data)
        try:
            self.port.sendto(sealed, self.address)
        except OSError as error:
            if not self._was_taken(sealed, error):
                self._site.counters.count_unsent(error)
                raise WouldBlock from None
        self.bytes_out += len(data)
        self.datagrams_out += 1

    def _write(self, data: bytes) -> bool:
        """Send a datagram; return False if there is no room for it now."""
        if self._closing:
            raise self._closed_error()
        sealed = data if self.layer is None else self.layer.seal(self, data)
        try:
            self.port.sendto(sealed, self.address)
        except OSError as error:
            if not self._was_taken(sealed, error):
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
        batches = _batches_of(items)
        left = next(batches, ())
        while True:
            if self._unyielded >= YIELD_EVERY or self._may_be_cancelled():
                await self._checkpoint()
            sent = self._write_batch(left)
            self._unyielded += sent or 1
            if sent < len(left):
                left = left[sent:]
                await self.port.wait_writable()
                self._unyielded = 0
            elif not (left := next(batches, ())):
                return

    def send_many_nowait(self, items: Iterable[bytes]) -> int:
        datagrams = [as_bytes(item) for item in items]
        sent = 0
        for batch in _batches_of(datagrams):
            taken = self._write_batch(batch)
            sent += taken
            if taken < len(batch):
                error = BlockingIOError(errno.EAGAIN, "the send buffer is full")
                self._site.counters.count_unsent(error, len(datagrams) - sent)
                break
        return sent

    def _write_batch(self, datagrams: Sequence[bytes]) -> int:
        """Send a batch of datagrams, and return how many there was room for."""
        if self._closing:
            raise self._closed_error()
        sent = 0
        for train in self._trains_of(datagrams):
            if len(train) > 1:
                try:
                    self.port.send_train(self._sealed(train), self.address)
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

    def _trains_of(self, datagrams: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        if not self.port.takes_trains:
            return ((each,) for each in datagrams)
        return trains(datagrams, 0 if self.layer is None else SEALING_BYTES)

    def _sealed(self, datagrams: Sequence[bytes]) -> Sequence[bytes]:
        layer = self.layer
        return datagrams if layer is None else [layer.seal(self, each) for each in datagrams]


def _batches_of(items: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
    """Split what a program sends into what is sent in one turn of the event loop, and sealed in vain at most."""
    unsent = iter(items)
    while batch := [as_bytes(item) for item in islice(unsent, MAX_SEGMENTS)]:
        yield batch


def trains(datagrams: Sequence[bytes], added_bytes: int = 0) -> Iterator[Sequence[bytes]]:
    """Split datagrams into those that the kernel takes in one call, in their order.

    Each but the last of a train has the same size, and the last is not longer and not empty (udp(7), UDP_SEGMENT).

    Args:
        datagrams: The datagrams.
        added_bytes: What may be added to each before it is sent.
    """
    begin = 0
    while begin < len(datagrams):
        size = len(datagrams[begin])
        most = min(MAX_SEGMENTS, MAX_TRAIN_BYTES // (size + added_bytes)) if size else 1
        end = begin + 1
        while end < len(datagrams) and end - begin < most and 0 < len(datagrams[end]) <= size:
            end += 1
            if len(datagrams[end - 1]) < size:
                break
        yield datagrams[begin:end]
        begin = end
