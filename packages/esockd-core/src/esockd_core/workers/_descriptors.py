"""Descriptors for a worker that runs already, over a socket pair of their own: the streams of event loops drop them."""

from __future__ import annotations

import os
import socket
import struct
from itertools import count
from typing import TYPE_CHECKING, Final

from esockd_core._remote.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_AT_ONCE: Final = 200  # unix(7): a message carries 253 at most
ORDER: Final = struct.Struct("=Q")


class DescriptorSender:
    """The parent's end of the pair to one worker.

    Args:
        end: Its socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._numbers = count(1)  # so that descriptors of an order that was given up are never those of another one

    def send(self, descriptors: Sequence[int]) -> int:
        """Send descriptors before the order that needs them, and return the number of that order.

        Raises:
            OSError: If the worker has ended, or has not taken those of many orders before.
        """
        order = next(self._numbers)
        for begin in range(0, len(descriptors), MOST_AT_ONCE):
            socket.send_fds(self._end, [ORDER.pack(order)], descriptors[begin : begin + MOST_AT_ONCE])
        return order

    def close(self) -> None:
        """Send no more."""
        self._end.close()


def descriptor_pair() -> tuple[DescriptorSender, socket.socket]:
    """A pair that keeps messages apart, both ends non-blocking: the parent's and the worker's.

    Raises:
        OSError: If the system lacks descriptors.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (ours, theirs):
        end.setblocking(False)
    return DescriptorSender(ours), theirs


def receive_descriptors(end: socket.socket, order: int, number: int) -> list[int]:
    """The descriptors of an order, which were sent before it. Those of orders that were given up are closed.

    Args:
        end: The worker's end.
        order: The number of the order.
        number: How many there are.

    Raises:
        ControlError: If this process may not have that many.
    """
    found: list[int] = []
    try:
        while len(found) < number:
            data, received, _, _ = socket.recv_fds(end, ORDER.size, MOST_AT_ONCE)
            found += received
            for descriptor in received:
                os.set_inheritable(descriptor, False)
            if ORDER.unpack(data) != (order,):
                _close(found)
    except OSError as error:
        _close(found)
        raise ControlError("this worker may have no more descriptors", code="cannot_start") from error
    return found


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
