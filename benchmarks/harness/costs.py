"""What a process costs: CPU time and private memory, read from outside of it (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness.errors import BenchmarkError


def cpu_ns(*pids: int) -> int:
    """User and system time that the processes have used so far, in nanoseconds, all threads, ended ones too.

    This is the process CPU clock of clock_getcpuclockid(3), whose id the kernel derives from the pid: what utime and
    stime in /proc/PID/stat add up to, but in nanoseconds where those count in hundredths of a second.
    """
    try:
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)
    except OSError as error:
        raise BenchmarkError(f"cannot read the CPU clock of process {pids}: it has ended ({error})") from error


def ended_children_ns(*pids: int) -> int:
    """The same of children that have ended and were waited for: cutime and cstime, in hundredths of a second."""
    ticks = 0
    for pid in pids:
        # The name in brackets may hold blanks (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[13]) + int(fields[14])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and all its living descendants: what a server with workers costs is the sum over them."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def private_bytes(*pids: int) -> int:
    """Memory that belongs to the processes alone: Private_Clean and Private_Dirty of /proc/PID/smaps_rollup.

    What the kernel keeps for each socket is in no process and not in here.
    """
    return sum(_rollup_bytes(pid, "Private_Clean:", "Private_Dirty:") for pid in pids)


def proportional_bytes(*pids: int) -> int:
    """Memory of the processes together, shared pages counted once: Pss of /proc/PID/smaps_rollup."""
    return sum(_rollup_bytes(pid, "Pss:") for pid in pids)


def _rollup_bytes(pid: int, *names: str) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError as error:
        raise BenchmarkError(f"cannot read the memory of process {pid}: {error}") from error
    fields = [line.split() for line in text.splitlines()]
    return sum(int(words[1]) for words in fields if words[0] in names) * 1024
