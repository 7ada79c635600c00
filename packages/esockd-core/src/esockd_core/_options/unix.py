"""The mode and owner of a Unix socket's path, which decide who may connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esockd_core._errors import InvalidOption
from esockd_core._options.table import check_options
from esockd_core._platform.accounts import group_id, user_id

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixOptions:
    """The mode and owner of a Unix socket's path. Connecting needs write permission on it (unix(7)).

    Attributes:
        mode: The permission bits of the path, whatever the umask; None is 0o660.
        owner: The user who owns the path, by name or number; None is the process's own. Another one needs CAP_CHOWN.
        group: The group of the path, by name or number; None is the process's own.

    Raises:
        InvalidOption: If the mode is outside 0 to 0o777, or the user or group does not exist.
    """

    mode: int | None = None
    owner: str | int | None = None
    group: str | int | None = None

    def __post_init__(self) -> None:
        check_options("unix", self)
        self.owner_ids()

    def owner_ids(self) -> tuple[int, int]:
        """Numbers of owner and group, -1 for one that stays as it is (chown(2))."""
        return (
            _number("unix.owner", self.owner, user_id),
            _number("unix.group", self.group, group_id),
        )


def _number(option: str, account: str | int | None, find: Callable[[str], int]) -> int:
    if not isinstance(account, str):
        return -1 if account is None else account
    try:
        return find(account)
    except KeyError as error:
        raise InvalidOption("this machine does not know the name", option=option, value=account) from error
