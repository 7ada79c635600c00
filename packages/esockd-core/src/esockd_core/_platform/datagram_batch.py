"""Several datagrams of a socket in one call: recvmmsg(2) of Linux, which Python's socket module lacks, by ctypes."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_core._platform.packet_info import Ancillary

ctypes: Final[Any] = import_module("ctypes") if find_spec("_ctypes") else None  # a Python built without libffi has none

SLOTS: Final = 32  # with 16, a datagram costs 95 ns more; with 64, 45 less, for twice the memory
STAGGER_BYTES: Final = 64  # added between slots, or all of them would begin on the same lines of the CPU's caches
VECTOR: Final = struct.Struct("@PN")  # struct iovec: memory, its size
# struct mmsghdr. The struct msghdr in it: address and its size, vectors and their number, ancillary data and its size,
# flags, and padding to the size of a pointer. Then the size of the datagram.
MESSAGE: Final = struct.Struct("@PIPNPNNI0P")
SIZE_AT: Final = struct.calcsize("@PIPNPNN")
CONTROL: Final = struct.Struct("@Nii")  # struct cmsghdr: size of it and its data, level, type
# The size of a struct sockaddr_in and that of a struct sockaddr_in6, with 4 bytes that align what follows.
NAME_BYTES: Final = {socket.AF_INET: 16, socket.AF_INET6: 32}
IPV4: Final = struct.Struct("!2xH4s")  # family, port, address
IPV6: Final = struct.Struct("!2xHI16s")  # family, port, flow, address
SCOPE: Final = struct.Struct("=24xI")  # after these, in the byte order of the machine
TRIALS: Final = (b"one", b"another")


class DatagramBatch:
    """Takes several datagrams of a socket in one call.

    Everything that it gives is a copy, so the next call may come before all of that was looked at. Its memory is the
    pages that datagrams have filled: 150 KiB with all the rest, and up to 2 MiB for the longest ones.

    Args:
        datagram_bytes: What is taken of a datagram; the rest of it is lost.
        name_bytes: Room for the address of its sender.
        ancillary_bytes: Room for ancillary data.
        slots: How many are taken at most.

    Attributes:
        is_full: Whether the last call took as many as it could, so that more may wait.

    Raises:
        OSError: If there is no memory.
    """

    __slots__ = (
        "_first",
        "_headers",
        "_most",
        "_new",
        "_nowhere",
        "_origins",
        "_sizes",
        "_slots",
        "_unpack",
        "_vectors",
        "is_full",
    )

    def __init__(self, datagram_bytes: int, name_bytes: int, ancillary_bytes: int = 0, slots: int = SLOTS) -> None:
        stride = (datagram_bytes | (STAGGER_BYTES - 1)) + 1 + STAGGER_BYTES
        origin_bytes = name_bytes + ancillary_bytes
        memory = mmap.mmap(-1, slots * stride, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._slots = [(ctypes.c_char * datagram_bytes).from_buffer(memory, at * stride) for at in range(slots)]
        self._origins = bytearray(slots * origin_bytes)
        self._nowhere = bytes(self._origins)
        self._unpack = _unpackers(origin_bytes)
        self._vectors = bytearray(slots * VECTOR.size)
        self._headers = memoryview(bytearray(slots * MESSAGE.size))
        origins, vectors = _address_of(self._origins), _address_of(self._vectors)
        for index, slot in enumerate(self._slots):
            VECTOR.pack_into(self._vectors, index * VECTOR.size, ctypes.addressof(slot), datagram_bytes)
            name, vector = origins + index * origin_bytes, vectors + index * VECTOR.size
            given = (name, name_bytes, vector, 1, name + name_bytes, ancillary_bytes, 0, 0)
            MESSAGE.pack_into(self._headers, index * MESSAGE.size, *given)
        self._first = ctypes.c_void_p(_address_of(self._headers))
        self._new = bytes(self._headers)  # the kernel writes over the sizes what it has used of them
        self._sizes = self._headers.cast("I")[SIZE_AT // 4 :: MESSAGE.size // 4]
        self._most = slots
        self.is_full = False

    def take(self, descriptor: int) -> Iterator[tuple[bytes, int, bytes]]:
        """Take datagrams: each with its size and its origin, which is the sender's address and the ancillary data.

        Raises:
            OSError: What the kernel has in place of the first datagram; EAGAIN for none.
        """
        self._headers[:] = self._new
        self._origins[:] = self._nowhere
        number = _recvmmsg(descriptor, self._first, self._most, socket.MSG_DONTWAIT, None)
        self.is_full = number == self._most
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        sizes = self._sizes[:number].tolist()
        datagrams = [slot[:size] for slot, size in zip(self._slots, sizes, strict=False)]
        return zip(datagrams, sizes, self._unpack[number](self._origins), strict=True)


@cache
def _unpackers(size: int) -> list[Callable[[bytearray], tuple[bytes, ...]]]:
    """For each number of pieces of this size, what unpacks them at once."""
    return [struct.Struct(f"{size}s" * number).unpack_from for number in range(SLOTS + 1)]


def _address_of(buffer: Any) -> int:
    address: int = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    return address


def _find() -> Any:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None, use_errno=True).recvmmsg
    except (AttributeError, OSError):  # no ctypes, a libc without the call, a program that is linked statically
        return None


_recvmmsg = _find()


@cache
def batches_work() -> bool:
    """Whether this system has recvmmsg(2), lets this program call it, and has structures like these.

    Raises:
        OSError: If there are no descriptors to find out with.
    """
    if _recvmmsg is None:
        return False
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        for each in TRIALS:
            one.send(each)
        try:
            taken = list(DatagramBatch(6, 16).take(other.fileno()))
        except OSError:
            return False
    return [each[:2] for each in taken] == [(each[:6], min(6, len(each))) for each in TRIALS]


def address_in(origin: bytes) -> Any:
    """The address of a sender, as recvfrom of a Python socket gives it."""
    if int.from_bytes(origin[:2], sys.byteorder) == socket.AF_INET:
        port, host = IPV4.unpack_from(origin)
        return socket.inet_ntop(socket.AF_INET, host), port
    port, flow, host = IPV6.unpack_from(origin)
    return socket.inet_ntop(socket.AF_INET6, host), port, flow, *SCOPE.unpack_from(origin)


def ancillary_in(origin: bytes, name_bytes: int) -> Ancillary:
    """The first ancillary data of a datagram, as recvmsg of a Python socket gives it."""
    length, level, kind = CONTROL.unpack_from(origin, name_bytes)
    begin = name_bytes + CONTROL.size
    return [(level, kind, origin[begin : name_bytes + length])] if length > CONTROL.size else []
