"""The check of which user instances are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from esockd_cli.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cli.doctor.patient import Patient

EFFECTIVE: Final = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.MULTILINE)  # proc_pid_status(5)


def look_at_user(patient: Patient) -> Iterator[Finding]:
    """Whether an instance serves as root."""
    for process in patient.processes:
        if process.pid is None:
            continue
        found = EFFECTIVE.search(patient.machine.read(f"proc/{process.folder_in_proc}/status"))
        if found is not None and found[1] == "0":
            yield Finding(
                "warning",
                process.name,
                "it serves as root",
                "A mistake in a handler, or in a library, gives a client the whole machine.",
                "start it with --user NAME, and it can still listen on ports below 1024",
            )
