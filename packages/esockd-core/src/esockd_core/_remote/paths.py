"""Where control sockets are: one folder for each user, one socket for each program."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from esockd_core._errors import CannotBind, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
SUFFIX: Final = ".sock"
READ_ONLY_SUFFIX: Final = ".ro.sock"


def control_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of this user's control sockets.

    It is `$ESOCKD_RUNTIME_DIR`; otherwise the first of `$RUNTIME_DIRECTORY`, which systemd sets for a service;
    otherwise `$XDG_RUNTIME_DIR/esockd` if this user may enter that folder; otherwise `/tmp/esockd-UID`.
    """
    env = os.environ if environment is None else environment
    if own := env.get("ESOCKD_RUNTIME_DIR"):
        return Path(own)
    if of_service := env.get("RUNTIME_DIRECTORY"):
        return Path(of_service.partition(":")[0])
    of_user = env.get("XDG_RUNTIME_DIR")
    if of_user and os.access(f"{of_user}/", os.X_OK):  # after su(1) it may be somebody's who is logged out
        return Path(of_user, "esockd")
    return Path(f"/tmp/esockd-{os.geteuid()}")  # noqa: S108 (made for its owner alone, and checked)


def control_path(name: str, folder: Path | None = None) -> Path:
    """The control socket of a program.

    Raises:
        InvalidOption: If the name cannot be a file's.
    """
    if NAME.fullmatch(name) is None or name.endswith((SUFFIX, ".ro")):
        raise InvalidOption("it takes up to 64 letters, digits and _ . -", option="name", value=name)
    return (folder or control_folder()) / (name + SUFFIX)


def read_only_path(path: Path) -> Path:
    """The path of the read-only socket next to a control socket."""
    return path.with_name(path.name.removesuffix(SUFFIX) + READ_ONLY_SUFFIX)


def find_control_sockets(folder: Path | None = None) -> dict[str, Path]:
    """The control sockets in a folder, by the name of their program. Some may be stale, which only connecting tells.

    Args:
        folder: None for `control_folder()`.
    """
    try:
        found = sorted((folder or control_folder()).iterdir())
        sockets = [path for path in found if path.name.endswith(SUFFIX) and path.is_socket()]
    except OSError:
        return {}
    for_reading = {path.name.removesuffix(READ_ONLY_SUFFIX): path for path in sockets if _is_read_only(path)}
    return for_reading | {path.name.removesuffix(SUFFIX): path for path in sockets if not _is_read_only(path)}


def _is_read_only(path: Path) -> bool:
    return path.name.endswith(READ_ONLY_SUFFIX)


def prepare_folder(folder: Path) -> None:
    """Make a missing folder, for its owner alone, and refuse a folder in which others could replace a socket.

    Raises:
        CannotBind: If it cannot be made, or is not ours.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise CannotBind(error.errno, f"cannot make the folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise CannotBind(errno.ENOTDIR, f"{folder} is not a folder")
    if status.st_uid not in (os.geteuid(), 0):
        raise CannotBind(errno.EPERM, f"the folder {folder} belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o022:
        raise CannotBind(errno.EPERM, f"others may write to the folder {folder}", f"Try: chmod go-w {folder}")
