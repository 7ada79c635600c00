"""Choosing the sockets of an SO_REUSEPORT group that new clients go to, by a classic BPF program (Linux).

socket(7), SO_ATTACH_REUSEPORT_CBPF: the program returns the index of a socket, in the order in which the sockets began
to listen. An index that does not exist leaves the choice to the kernel, which spreads clients over all sockets.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

IS_SUPPORTED: Final = sys.platform == "linux"
"""Whether a port can be shared by sockets whose clients can be steered. Elsewhere SO_REUSEPORT spreads nothing."""

SO_ATTACH_REUSEPORT_CBPF: Final = 51  # asm-generic/socket.h
INSTRUCTION: Final = struct.Struct("=HBBI")  # linux/filter.h, struct sock_filter
PROGRAM: Final = struct.Struct("@HP")  # struct sock_fprog
LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
MODULO: Final = 0x94  # BPF_ALU | BPF_MOD | BPF_K
JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K
RANDOM: Final = 0xFFFF_F000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
NO_SOCKET: Final = 0xFFFF_FFFF


def steer(listening: socket.socket, indexes: Sequence[int] | None) -> None:
    """Let new clients go to some sockets of a group only. Clients that are queued already stay where they are.

    Args:
        listening: Any socket of the group.
        indexes: The sockets, each as likely as the others; None for all.

    Raises:
        OSError: If the kernel refuses.
    """
    code: list[tuple[int, int, int, int]] = []
    if indexes is not None and len(indexes) > 1:
        code += [(LOAD_WORD, 0, 0, RANDOM), (MODULO, 0, 0, len(indexes))]
        for number, index in enumerate(indexes):
            code += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, index)]
    code.append((RETURN, 0, 0, indexes[0] if indexes is not None and len(indexes) == 1 else NO_SOCKET))
    buffer = ctypes.create_string_buffer(b"".join(INSTRUCTION.pack(*each) for each in code))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, PROGRAM.pack(len(code), ctypes.addressof(buffer)))
