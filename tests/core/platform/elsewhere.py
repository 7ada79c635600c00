"""A plugin of pytest that makes this Linux look like another system: `pytest -p tests.core.platform.elsewhere`.

ESOCKD_SYSTEM names the system as `sys.platform` does: "darwin", "freebsd14", "openbsd7", or "sunos5" for one without
kqueue(2) too. What only Linux has is gone: for everybody but event loops, which have code of their own for each system.
Only /proc is gone for esockd_core alone, as tests look there whether descriptors leak.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib
import io
import os
import pkgutil
import select
import selectors
import socket
import stat
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from tests.core.platform import kqueues

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    import pytest

SYSTEM = os.environ["ESOCKD_SYSTEM"]
ONLY_LINUX_ERRORS = ("ENONET", "ECOMM", "EBADFD", "ENOTUNIQ", "EREMCHG", "EUCLEAN", "ENOKEY", "EREMOTEIO", "ERFKILL")
ONLY_LINUX_SOCKETS = (
    "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_TIPC", "SO_PEERCRED", "SO_DOMAIN", "SO_PROTOCOL", "SO_MARK",
    "SO_PRIORITY", "SO_BINDTODEVICE", "SO_INCOMING_CPU", "SO_PASSCRED", "TCP_INFO", "TCP_USER_TIMEOUT", "TCP_QUICKACK",
    "TCP_DEFER_ACCEPT", "TCP_CORK", "TCP_SYNCNT", "TCP_LINGER2", "TCP_WINDOW_CLAMP", "TCP_CONGESTION", "TCP_FASTOPEN",
    "MSG_CONFIRM", "MSG_MORE", "MSG_ERRQUEUE", "SOCK_NONBLOCK", "SOCK_CLOEXEC",
)  # fmt: skip


def hide_epoll() -> None:
    """The event loops keep theirs."""
    import trio._core._io_epoll as trio_epoll  # noqa: PLC0415

    theirs: Any = SimpleNamespace(**vars(select))
    for module in (trio_epoll, selectors):
        module.select = theirs  # type: ignore[attr-defined]
    for name in [name for name in vars(select) if name.lower().startswith("epoll")]:
        delattr(select, name)
    if SYSTEM != "sunos5":
        for name in ("kqueue", "kevent", "KQ_FILTER_READ", "KQ_EV_ADD", "KQ_EV_DELETE", "KQ_EV_EOF"):
            setattr(select, name, getattr(kqueues, name))


def hide_constants() -> None:
    names = list(ONLY_LINUX_SOCKETS)
    keep_idle = socket.TCP_KEEPIDLE
    if SYSTEM == "darwin":
        names.append("TCP_KEEPIDLE")
    elif SYSTEM != "freebsd14":
        names += ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"]
    for name in names:
        if hasattr(socket, name):
            delattr(socket, name)
    if SYSTEM == "darwin":
        socket.TCP_KEEPALIVE = keep_idle  # type: ignore[attr-defined]
    for name in ONLY_LINUX_ERRORS:
        delattr(errno, name)


def refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def core_calls() -> bool:
    """Whether esockd_core is among the nearest callers: `pathlib` and `glob` may stand between."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(8):
        if frame is None:
            break
        if frame.f_globals.get("__name__", "").startswith("esockd_core"):
            return True
        frame = frame.f_back
    return False


def hide_proc() -> None:
    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path).startswith("/proc") and core_calls():
                refuse(errno.ENOENT)
            return real(path, *arguments, **named)

        return call

    for module, names in ((os, ("stat", "lstat", "listdir", "scandir", "readlink", "open")), (io, ("open",))):
        for name in names:
            setattr(module, name, guarded(getattr(module, name)))
    builtins.open = io.open


def limit_calls() -> None:
    def ioctl(fd: object, request: int, *arguments: object) -> NoReturn:
        refuse(errno.ENOTTY)

    def fchmod(fd: int, mode: int, real: Callable[[int, int], None] = os.fchmod) -> None:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            refuse(errno.EINVAL)
        real(fd, mode)

    real_getsockopt: Any = socket.socket.getsockopt

    def getsockopt(
        sock: socket.socket, level: int, option: int, *size: int, real: Any = socket.socket.getsockopt
    ) -> Any:
        if SYSTEM == "darwin" and (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            refuse(errno.ENOPROTOOPT)
        return real_getsockopt(sock, level, option, *size)

    fcntl.ioctl = ioctl
    os.fchmod = fchmod
    socket.socket.getsockopt = getsockopt  # type: ignore[method-assign, assignment]


def import_core() -> None:
    """As on that system: its modules look at `sys.platform` when they are imported."""
    real, sys.platform = sys.platform, SYSTEM
    try:
        package = importlib.import_module("esockd_core")
        for module in pkgutil.walk_packages(package.__path__, "esockd_core."):
            importlib.import_module(module.name)
    finally:
        sys.platform = real


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("linux")])
    items[:] = [item for item in items if not item.get_closest_marker("linux")]


hide_epoll()
hide_constants()
hide_proc()
limit_calls()
import_core()
