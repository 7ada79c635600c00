"""The user and the group that serve, as they are given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from esockd_cli._errors import CommandError, ExitCode, bad_value
from esockd_core import InvalidOption
from esockd_core.privileges import find_account

if TYPE_CHECKING:
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
        raise bad_value(error, f"--{error.option} {error.value}", code=f"unknown_{error.option}") from error
    if not account.is_current and os.geteuid() != ROOT:
        flag = f"--user {user}" if user is not None else f"--group {group}"
        raise CommandError(
            f"{flag}: only root can serve as somebody else, and this is uid {os.geteuid()}.",
            code="not_root",
            status=ExitCode.CANNOT_START,
            hint="Start it as root, or as that user without this flag.",
        )
    return account
