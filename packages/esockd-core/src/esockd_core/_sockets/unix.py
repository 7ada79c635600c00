"""Listening on a Unix path: never take over a live one, never have a wrong mode, remove only our own file."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from esockd_core._errors import AddressInUse, CannotBind
from esockd_core._platform.commands import show_path_holder
from esockd_core._platform.path_lock import lock_path_of, locked_path
from esockd_core._platform.peer_process import peer_process
from esockd_core._platform.port_holder import name_process
from esockd_core._platform.unix_sockets import bind_with_mode, is_bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._options.unix import UnixOptions

DEFAULT_MODE: Final = 0o660


class SocketFile:
    """The file of a listening Unix socket. It is known by its inode, so that only our own file is removed.

    Args:
        path: Its path.
        identity: Its device and inode; None for those that it has now.

    Attributes:
        identity: Its device and inode.
    """

    __slots__ = ("_path", "identity")

    def __init__(self, path: str, identity: tuple[int, int] | None = None) -> None:
        self._path = Path(path).absolute()
        if identity is None:
            status = self._path.lstat()
            identity = (status.st_dev, status.st_ino)
        self.identity: tuple[int, int] = identity

    def set_owner(self, options: UnixOptions) -> None:
        """Set its mode and owner.

        Raises:
            OSError: If the kernel refuses.
        """
        self._path.chmod(DEFAULT_MODE if options.mode is None else options.mode)
        if (ids := options.owner_ids()) != (-1, -1):
            os.chown(self._path, *ids, follow_symlinks=False)

    def remove(self) -> None:
        """Unlink the file, unless it is gone or replaced. Call it while the socket still listens.

        Other programs that probe the path find it live until it is gone, so none replaces it between look and unlink.
        """
        with suppress(OSError):
            status = self._path.lstat()
            if (status.st_dev, status.st_ino) == self.identity:
                self._path.unlink()


def bind_unix_path(sock: socket.socket, path: str, options: UnixOptions) -> SocketFile | None:
    """Bind a Unix socket to a path, or to "@name" in the abstract namespace; a stale file is replaced.

    Args:
        sock: An unbound AF_UNIX stream socket. The caller listens on it inside `claimed_path`.
        path: As in `Address.path`.
        options: Mode and owner of the file.

    Returns:
        The file, None in the abstract namespace.

    Raises:
        AddressInUse: If somebody else listens there.
        CannotBind: If the path cannot be used for another reason.
        OSError: If the kernel refuses; nothing is left behind.
    """
    if path.startswith("@"):
        try:
            sock.bind(kernel_address(path))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _in_use(path) or error from error
            raise
        return None
    _clear_stale(path)
    mode = DEFAULT_MODE if options.mode is None else options.mode
    bind_with_mode(sock, path, mode)
    file = SocketFile(path)
    try:
        file.set_owner(options)
    except BaseException:
        file.remove()
        raise
    return file


@contextmanager
def claimed_path(path: str) -> Iterator[None]:
    """Keep all other listeners of this package from probing, removing or binding the path meanwhile.

    Raises:
        AddressInUse: If another process or thread is opening the same path just now.
        CannotBind: If the folder does not exist or cannot be written to.
    """
    with ExitStack() as stack:
        if not path.startswith("@"):
            try:
                stack.enter_context(locked_path(path))
            except BlockingIOError as error:
                raise AddressInUse(
                    errno.EADDRINUSE, f"unix:{path} is being opened by another process just now"
                ) from error
            except OSError as error:
                reason = f"cannot create {lock_path_of(path)}: {error.strerror}"
                raise CannotBind(error.errno, f"cannot listen on unix:{path}: {reason}") from error
        yield


def _clear_stale(path: str) -> None:
    """Remove the socket file of a listener that is gone.

    Raises:
        AddressInUse: If the listener is alive, or if that cannot be ruled out.
        CannotBind: If the path is not a socket.
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
    """Find out by connecting whether a path or abstract name is in use; None if it is free."""
    listens = True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(kernel_address(path))
        match result:
            case 0:
                holder = peer_process(probe)
                told = f" by {name_process(holder.pid)}" if holder and holder.pid else ""
            case errno.ECONNREFUSED | errno.ENOENT:
                if path.startswith("@") or not is_bound(path):
                    return None
                listens, told = False, " by a program that takes no clients"  # not yet, perhaps
            case errno.EAGAIN:
                told = ""  # it listens, with a full backlog
            case _:
                told = f" (probing it: {os.strerror(result)})"
    hint = f"Try another path, or: {show_path_holder(path, listening=listens)}"
    return AddressInUse(errno.EADDRINUSE, f"unix:{path} is already in use{told}", hint)


def kernel_address(path: str) -> str | bytes:
    """The path as bind(2) and connect(2) take it: "@name" is in the abstract namespace (unix(7))."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else path
