"""What the kernel keeps for sockets, which is in no process (Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KernelMemory:
    """What the kernel says of its own memory.

    Attributes:
        slab: Bytes of all its objects: sockets, files, and much else.
        tcp: Bytes of data in TCP sockets.
        available: Bytes that programs could still get.
    """

    slab: int
    tcp: int
    available: int


def kernel_memory() -> KernelMemory:
    """What it has now."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    tcp = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    words = tcp.split()
    return KernelMemory(
        slab=int(meminfo["Slab"].split()[0]) * 1024,
        tcp=int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE"),
        available=int(meminfo["MemAvailable"].split()[0]) * 1024,
    )


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
