"""Users and groups of this machine (passwd(5), group(5) and other sources of the system), and becoming one of them."""

from __future__ import annotations

import grp
import os
import pwd
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from esockd_core._errors import EsockdError, InvalidOption

LARGEST_ID: Final = 2**32 - 2  # the next one stands for "no change" (setresuid(2))
STATUS: Final = Path("/proc/self/status")
PERMITTED: Final = re.compile(rb"^CapPrm:\s*([0-9a-f]+)$", re.MULTILINE)


def user_id(name: str) -> int:
    """The number of a user.

    Raises:
        KeyError: If there is no such user.
    """
    return pwd.getpwnam(name).pw_uid


def group_id(name: str) -> int:
    """The number of a group.

    Raises:
        KeyError: If there is no such group.
    """
    return grp.getgrnam(name).gr_gid


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user and groups that a process may have. Get one from `find_account`.

    Attributes:
        name: The name of the user; the number if the user has no name.
        uid: The number of the user.
        gid: The number of the group.
        groups: The numbers of all groups, `gid` included.
        home: The home folder of the user; "/" if none is known.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def is_current(self) -> bool:
        """Whether this process has this user and this group, and no other that it could go back to."""
        return _own_uids() == {self.uid} and _own_gids() == {self.gid}

    def become(self) -> None:
        """Give this process this user and these groups for good.

        Only root can. A process that has this user and this group already keeps its further groups. The environment,
        such as `HOME`, stays as it is. If this raises, the process may have some of the new groups and should end.

        Raises:
            EsockdError: If the kernel refuses, or if the process has a capability or could become root again.
        """
        if not self.is_current:
            self._take()
        if (privilege := _privilege(self)) is not None:
            raise EsockdError(f"this process is {self.name}, but {privilege}")

    def _take(self) -> None:
        try:
            os.setgroups(self.groups)
            os.setgid(self.gid)
            os.setuid(self.uid)
        except OSError as error:
            who = f"{self.name} (uid {self.uid}, gid {self.gid})"
            raise EsockdError(f"cannot become {who}: {error.strerror}") from error
        if set(os.getgroups()) - {self.gid} != set(self.groups) - {self.gid}:
            raise EsockdError(f"this process is {self.name} now, but it has the groups {os.getgroups()}")


def _own_uids() -> set[int]:
    """The users of this process: real, effective and, where the system tells it, saved."""
    return set(os.getresuid()) if hasattr(os, "getresuid") else {os.getuid(), os.geteuid()}


def _own_gids() -> set[int]:
    """The groups of this process: real, effective and, where the system tells it, saved."""
    return set(os.getresgid()) if hasattr(os, "getresgid") else {os.getgid(), os.getegid()}


def _privilege(account: Account) -> str | None:
    """What this process has, or could do, beyond a user other than root; None if there is nothing."""
    if account.uid == 0:
        return None
    with suppress(OSError):  # not Linux, or no /proc
        found = PERMITTED.search(STATUS.read_bytes())
        if found and int(found[1], 16):
            return f"it has capabilities: {found[1].decode()}"
    try:
        os.setuid(0)
    except PermissionError:
        return None
    return "it could become root again"


def find_account(user: str | int | None = None, group: str | int | None = None) -> Account:
    """Find a user and its groups on this machine.

    Args:
        user: Its name or number; None for the user of this process.
        group: The name or number of the group to have; None for the user's own.

    Raises:
        InvalidOption: If this machine does not know a name, if something else than a name or a number is given, if a
            number is out of bounds, or if the user is known by its number only and no group is given.
    """
    user, group = _text("user", user), _text("group", group)
    entry = _entry(user)
    uid = entry.pw_uid if entry is not None else os.geteuid() if user is None else _number("user", user)
    if group is not None:
        gid = _group(group)
    elif entry is not None:
        gid = entry.pw_gid
    else:
        reason = "the user database has no group for this number"
        raise InvalidOption(reason, option="user", value=user or uid, hint="Name a group too.")
    if entry is None:
        return Account(name=str(uid), uid=uid, gid=gid, groups=(gid,), home="/")
    groups = os.getgrouplist(entry.pw_name, gid)[: os.sysconf("SC_NGROUPS_MAX")]
    return Account(name=entry.pw_name, uid=uid, gid=gid, groups=tuple(groups), home=entry.pw_dir or "/")


def _text(option: str, given: str | int | None) -> str | None:
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if given is not None and not isinstance(given, str):
        raise InvalidOption("it takes a name or a number", option=option, value=given)
    return given


def _entry(user: str | None) -> pwd.struct_passwd | None:
    """The entry of a user; None for a number without one."""
    if user is not None:
        with suppress(KeyError, ValueError):  # no file of accounts has a NUL
            return pwd.getpwnam(user)
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid() if user is None else _number("user", user))
    return None


def _group(group: str) -> int:
    with suppress(KeyError, ValueError):
        return group_id(group)
    return _number("group", group)


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise InvalidOption("this machine does not know the name", option=option, value=text)
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(LARGEST_ID)) or int(digits) > LARGEST_ID:  # int() refuses more than 4,300 of them
        raise InvalidOption(f"a number is at most {LARGEST_ID}", option=option, value=text)
    return int(digits)
