"""Users and groups of this machine, by name (passwd(5), group(5) and other sources of the system)."""

from __future__ import annotations

import grp
import pwd


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
