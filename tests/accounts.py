"""The user and the groups of a process, as the kernel tells of them. Linux only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from esockd_core.privileges import Account

NEEDS_ROOT: Final = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def assert_process_is(pid: int, account: Account) -> None:
    """See that a process has a user and the groups of an account, and no other."""
    status = _status(pid)
    assert status["Uid"] == [str(account.uid)] * 4
    assert status["Gid"] == [str(account.gid)] * 4
    assert {int(each) for each in status["Groups"]} == set(account.groups)


def assert_process_has_no_capability(pid: int) -> None:
    """See that a process is none that the kernel lets do more than others, and that it cannot start any."""
    status = _status(pid)
    assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}


def _status(pid: int) -> dict[str, list[str]]:
    """The lines of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
