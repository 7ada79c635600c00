"""How long a process has waited for a processor: a busy machine keeps it from working, which is no fault of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NS_PER_S: Final = 10**9


def waited_s(pid: int) -> float:
    """Seconds in which the main thread of a process could run and no processor was free for it.

    From /proc/PID/schedstat (Documentation/scheduler/sched-stats.rst of Linux). The kernel adds a wait once it is over
    (sched_info_arrive): one that still lasts is not part of the number. 0 where the system does not tell, or once the
    process is gone.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / NS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0
