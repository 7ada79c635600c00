"""The process that holds an address, for the message "address already in use".

It is read from /proc/net and /proc/PID/fd (proc(5)): best effort, bounded, and only after bind(2) has failed.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC: Final = Path("/proc")
LISTEN_STATE: Final = "0A"  # TCP_LISTEN in include/net/tcp_states.h
MAX_LINES: Final = 100_000
MAX_SEARCH_S: Final = 1.0


def find_holder(host: str, port: int, *, datagram: bool) -> str | None:
    """Name the process that holds a port, as "python (pid 812)".

    Args:
        host: The numeric address that could not be bound.
        port: The port that could not be bound.
        datagram: Whether it is a UDP port.

    Returns:
        Its name; None if it is gone, or if it belongs to another user.
    """
    inodes = _holding_inodes(host.partition("%")[0], port, datagram=datagram)
    pids = sorted(_processes_holding({f"socket:[{inode}]" for inode in inodes})) if inodes else []
    if not pids:
        return None
    others = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
    return name_process(os.getpid() if os.getpid() in pids else pids[0]) + others


def name_process(pid: int) -> str:
    """A process in words, as "python (pid 812)"."""
    if pid == os.getpid():
        return f"this process (pid {pid})"
    try:
        name = (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        name = "a process"
    return f"{name} (pid {pid})"


def _holding_inodes(host: str, port: int, *, datagram: bool) -> set[str]:
    """Inodes of the sockets that are bound in the way of host and port."""
    protocol = "udp" if datagram else "tcp"
    tables = [protocol, f"{protocol}6"]
    if ":" in host:
        tables.reverse()
    wanted = _hexadecimal(host)
    for table in tables:
        found = set()
        for local, local_port, inode in _bound_sockets(table, datagram=datagram):
            if local_port == port and (local == wanted or not (local.strip("0") and wanted.strip("0"))):
                found.add(inode)
        if found:
            return found
    return set()


def _bound_sockets(table: str, *, datagram: bool) -> Iterator[tuple[str, int, str]]:
    """Local address in hexadecimal, local port and inode of the sockets in a table of /proc/net."""
    try:
        with (PROC / "net" / table).open() as lines:
            for line in islice(lines, 1, MAX_LINES):
                fields = line.split()
                if not datagram and fields[3] != LISTEN_STATE:
                    return  # listening sockets come first
                local, _, port = fields[1].partition(":")
                yield local, int(port, 16), fields[9]
    except OSError:
        return


def _hexadecimal(host: str) -> str:
    """An address as in /proc/net: 32-bit words in the machine's byte order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words)


def _processes_holding(links: set[str]) -> Iterator[int]:
    deadline = time.monotonic() + MAX_SEARCH_S
    for process in PROC.glob("[0-9]*"):
        if time.monotonic() > deadline:
            return
        try:
            descriptors = os.listdir(process / "fd")  # noqa: PTH208 (pathlib would build an object a descriptor)
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                link = os.readlink(f"{process}/fd/{descriptor}")  # noqa: PTH115 (as above)
            except OSError:
                continue
            if link in links:
                yield int(process.name)
                break
