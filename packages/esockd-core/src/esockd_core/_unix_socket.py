"""Listening on a Unix path: never steal a live one, never show a wrong mode, remove only what is ours."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from esockd_core._errors import AddressInUse, CannotBind, InvalidOption
from esockd_core._holder import name_process

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_MODE: Final = 0o660


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixOptions:
    """Who may connect to a Unix path: connecting needs write permission on it (unix(7)).

    Attributes:
        mode: Permission bits of the socket file; None for 0o660. The umask plays no part.
        owner: User name or number the file is given to; None for the process's own. Others need CAP_CHOWN.
        group: Group name or number the file is given to; None for the process's own.

    Raises:
        InvalidOption: A mode outside 0 to 0o777, or a user or group that does not exist.
    """

    mode: int | None = None
    owner: str | int | None = None
    group: str | int | None = None

    def __post_init__(self) -> None:
        if self.mode is not None and not (_is_whole(self.mode) and 0 <= self.mode <= 0o777):
            raise InvalidOption(f"bad mode {self.mode!r}: permission bits from 0 to 0o777, such as 0o660")
        self.owner_ids()

    def owner_ids(self) -> tuple[int, int]:
        """Numbers of owner and group, -1 for one that stays as it is (chown(2))."""
        try:
            uid = pwd.getpwnam(self.owner).pw_uid if isinstance(self.owner, str) else self.owner
            gid = grp.getgrnam(self.group).gr_gid if isinstance(self.group, str) else self.group
        except KeyError as error:
            raise InvalidOption(f"bad owner or group: {error.args[0]}") from error
        for name, number in (("owner", uid), ("group", gid)):
            if number is not None and not (_is_whole(number) and 0 <= number < 2**32 - 1):
                raise InvalidOption(f"bad {name} {number!r}: a name, or a number from 0 to {2**32 - 2}")
        return -1 if uid is None else uid, -1 if gid is None else gid


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class SocketFile:
    """The file of a listening Unix socket, known by its inode, so that only our own is ever removed."""

    __slots__ = ("_identity", "_path")

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        status = self._path.lstat()
        self._identity = (status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Unlink the file unless it is gone or somebody else's by now. Call it while the socket still listens.

        Whoever probes the path finds it live until it is gone, so nobody replaces it between look and unlink.
        """
        with suppress(OSError):
            status = self._path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                self._path.unlink()


def bind_unix_path(sock: socket.socket, path: str, options: UnixOptions) -> SocketFile | None:
    """Bind a Unix socket to a path, or to "@name" in the abstract namespace; a stale file is replaced.

    Args:
        sock: An unbound AF_UNIX stream socket. The caller listens on it inside `locked_path`.
        path: As in `Address.path`.
        options: Mode and owner of the file.

    Returns:
        The file, None in the abstract namespace.

    Raises:
        AddressInUse: Somebody listens there.
        CannotBind: Anything else that stands in the way.
        OSError: The kernel refuses; nothing is left behind.
    """
    if path.startswith("@"):
        if options != UnixOptions():
            raise InvalidOption(f"unix:{path} is no file: mode, owner and group do not apply to it")
        try:
            sock.bind(kernel_address(path))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _in_use(path) or error from error
            raise
        return None
    _clear_stale(path)
    mode = DEFAULT_MODE if options.mode is None else options.mode
    # Linux makes the file with the mode of the socket's own inode, less the umask: it is never wider than this,
    # and other threads keep their umask.
    os.fchmod(sock.fileno(), mode & 0o600)
    sock.bind(path)
    file = SocketFile(path)
    try:
        Path(path).chmod(mode)
        if (ids := options.owner_ids()) != (-1, -1):
            os.chown(path, *ids, follow_symlinks=False)
    except BaseException:
        file.remove()
        raise
    return file


@contextmanager
def locked_path(path: str) -> Iterator[None]:
    """Keep every other listener of this package from looking at, removing or binding the path meanwhile.

    The lock is a file beside the path, removed again; a crash leaves one behind that locks nothing.

    Raises:
        AddressInUse: Another process or thread is opening the same path just now.
        CannotBind: The folder does not exist or cannot be written to.
    """
    if path.startswith("@"):
        yield
        return
    lock_path = f"{path}.lock"
    try:
        lock = _take_lock(lock_path)
    except BlockingIOError as error:
        raise AddressInUse(errno.EADDRINUSE, f"unix:{path} is being opened by another process just now") from error
    except OSError as error:
        reason = f"cannot create {lock_path}: {error.strerror}"
        raise CannotBind(error.errno, f"cannot listen on unix:{path}: {reason}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock_path)  # noqa: PTH108 (still locked: nobody else holds this file)
        os.close(lock)


def _take_lock(lock_path: str) -> int:
    """Lock the file, and make sure that it still is the file of that name: its last holder may have removed it."""
    while True:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _clear_stale(path: str) -> None:
    """Remove the socket file of a listener that is gone.

    Raises:
        AddressInUse: The listener is there, or cannot be told from one that is.
        CannotBind: The path is no socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a file"
        raise CannotBind(errno.ENOTSOCK, f"cannot listen on unix:{path}: {kind} is there, which is not a socket")
    refusal = _in_use(path)
    if refusal is None:
        os.unlink(path)  # noqa: PTH108 (text for text)
    else:
        raise refusal


def _in_use(path: str) -> AddressInUse | None:
    """Ask by connecting who listens on a path or abstract name; None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(kernel_address(path))
        match result:
            case errno.ECONNREFUSED | errno.ENOENT:
                return None
            case 0:
                pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                told = f" by {name_process(pid)}" if pid else ""
            case errno.EAGAIN:
                told = ""  # it listens, with a full backlog
            case _:
                told = f" (probing it: {os.strerror(result)})"
    text = f"unix:{path} is already in use{told}. Try another path, or: ss -lxp src {path}"
    return AddressInUse(errno.EADDRINUSE, text)


def kernel_address(path: str) -> str | bytes:
    """The path as bind(2) and connect(2) take it: "@name" is in the abstract namespace (unix(7))."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else path
