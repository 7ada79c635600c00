"""The user and the group that serve: as they are given, and opening files in their name."""

from __future__ import annotations

import os
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Final

from esockd_cli._errors import CommandError, ExitCode, bad_value
from esockd_core import InvalidOption
from esockd_core.privileges import find_account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core.privileges import Account

ROOT: Final = 0
ANY_GROUP: Final = "0"


def check_user(user: str) -> None:
    """See that this machine knows a user, or that it is a number.

    Raises:
        InvalidOption: It is neither.
    """
    find_account(user, ANY_GROUP)


def check_group(group: str) -> None:
    """See that this machine knows a group, or that it is a number.

    Raises:
        InvalidOption: It is neither.
    """
    find_account(None, group)


def read_account(user: str | None, group: str | None) -> Account | None:
    """Find the user and the group that were given; None if neither was.

    Raises:
        UsageError: This machine does not know one of them.
        CommandError: This process is not root, and cannot become another user.
    """
    if user is None and group is None:
        return None
    try:
        account = find_account(user, group)
    except InvalidOption as error:
        raise bad_value(error, f"--{error.option} {quote(str(error.value))}", code=f"unknown_{error.option}") from error
    if not account.is_current and os.geteuid() != ROOT:
        flag = f"--user {user}" if user is not None else f"--group {group}"
        raise CommandError(
            f"{flag}: only root can serve as somebody else, and this is uid {os.geteuid()}.",
            code="not_root",
            status=ExitCode.CANNOT_START,
            hint="Start it as root, or as that user without this flag.",
        )
    return account


@contextmanager
def acting_as(account: Account | None) -> Iterator[None]:
    """Open files as another user during a block, and go back to root after it.

    Args:
        account: The user; None, or the user that this process is already, changes nothing.

    Raises:
        CommandError: The kernel refuses.
    """
    if account is None or account.is_current:
        yield
        return
    before = (os.getgroups(), os.getegid(), os.geteuid())
    try:
        os.setgroups(account.groups)
        os.setegid(account.gid)
        os.seteuid(account.uid)
    except OSError as error:
        why = f"cannot become {account.name} (uid {account.uid}, gid {account.gid}): {error.strerror}."
        raise CommandError(why, code="cannot_become_user", status=ExitCode.CANNOT_START) from error
    try:
        yield
    finally:
        groups, gid, uid = before
        os.seteuid(uid)  # first, for the right to do the rest
        os.setegid(gid)
        os.setgroups(groups)
