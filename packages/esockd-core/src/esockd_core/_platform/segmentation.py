"""Several datagrams to one peer in one call: UDP generic segmentation offload (udp(7), Linux 4.18 and later).

The kernel carries them as one packet as far as it can, and cuts it up late, or lets the network card do it.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
SIZE: Final = struct.Struct("=H")
MAX_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of linux/udp.h, which is larger from Linux 6.9 on
MAX_TRAIN_BYTES: Final = 65_507  # what one datagram over IPv4 may have


def takes_trains(sock: socket.socket) -> bool:
    """Whether the kernel takes several datagrams in one call."""
    if sys.platform != "linux":
        return False
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def segments_of(size: int) -> tuple[int, int, bytes]:
    """The ancillary data with which what is sent is cut into datagrams of this many bytes."""
    return SOL_UDP, UDP_SEGMENT, SIZE.pack(size)
