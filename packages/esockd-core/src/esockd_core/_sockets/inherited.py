"""Sockets that somebody else opened: a parent process, systemd, or the caller.

Their kind is read from the sockets, never assumed. Each is duplicated, so that closing a listener leaves the owner's
descriptor open. As long as that one is open, the kernel continues to queue clients.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from esockd_core._address import Address, describe_socket
from esockd_core._checks import did_you_mean
from esockd_core._errors import CannotBind
from esockd_core._sockets.asked import AskedSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_SYSTEMD_FD: Final = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
UNNAMED: Final = "unknown"  # as sd_listen_fds_with_names(3) calls sockets without a name
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def inherited_sockets(address: Address) -> list[socket.socket]:
    """Duplicate the sockets that an address of kind `systemd`, `fd` or `socket` stands for.

    Raises:
        CannotBind: If there is no such descriptor, or if it cannot be listened on as the address says.
    """
    if address.kind == "systemd":
        return _from_systemd(address)
    if address.socket is not None:
        what, fd = "the socket given", address.socket.fileno()
    else:
        what, fd = f"file descriptor {address.fd}", -1 if address.fd is None else address.fd
    with ExitStack() as stack:
        given = address.socket
        sock = stack.enter_context(given.dup() if isinstance(given, AskedSocket) else _duplicate(fd, what))
        if _is_datagram(sock) != address.is_datagram:
            raise CannotBind(errno.EPROTOTYPE, f"{what} is {_kind_of(sock)}: {_instead(address)}")
        _check(sock, what)
        stack.pop_all()
    return [sock]


def systemd_descriptors(environ: Mapping[str, str]) -> dict[str, list[int]]:
    """The descriptors passed by socket activation, by name, read as sd_listen_fds_with_names(3) does.

    Args:
        environ: Has LISTEN_FDS, LISTEN_PID and, if the sockets have names, LISTEN_FDNAMES.

    Returns:
        Descriptors by name; those without a name are under `UNNAMED`.

    Raises:
        CannotBind: If none were passed to this process, or if the variables contradict each other.
    """
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if not count:
        raise CannotBind(
            errno.ENOENT, "no sockets were passed: LISTEN_FDS is not set", "Start it from a .socket unit of systemd."
        )
    if pid != str(os.getpid()):
        raise CannotBind(
            errno.ENOENT,
            f"the sockets were passed to process {pid or 'unknown'} (LISTEN_PID), this one is {os.getpid()}",
        )
    if not (count.isascii() and count.isdecimal() and 0 < len(count) < 6):
        raise CannotBind(errno.EINVAL, f'bad LISTEN_FDS "{count}": a number of descriptors')
    descriptors = range(FIRST_SYSTEMD_FD, FIRST_SYSTEMD_FD + int(count))
    names = environ["LISTEN_FDNAMES"].split(":") if "LISTEN_FDNAMES" in environ else [UNNAMED] * len(descriptors)
    if len(names) != len(descriptors):
        raise CannotBind(errno.EINVAL, f"LISTEN_FDNAMES has {len(names)} names for {len(descriptors)} descriptors")
    by_name: dict[str, list[int]] = {}
    for name, descriptor in zip(names, descriptors, strict=True):
        by_name.setdefault(name or UNNAMED, []).append(descriptor)  # systemd takes FileDescriptorName= without a value
    return by_name


def _from_systemd(address: Address) -> list[socket.socket]:
    """Every socket of the address's name and type: one .socket unit may pass both streams and datagrams."""
    by_name = systemd_descriptors(os.environ)
    if address.name not in by_name:
        names = ", ".join(f'"{name}"' for name in by_name)
        why = f'systemd passed no socket named "{address.name}", but {names}'
        hint = did_you_mean(str(address.name), by_name, "systemd:{}")
        if UNNAMED in by_name:
            hint = f'A socket without a name is "systemd:{UNNAMED}"; FileDescriptorName= in its .socket unit names it.'
        raise CannotBind(errno.ENOENT, why, hint)
    found: list[socket.socket] = []
    others: list[str] = []
    with ExitStack() as stack:
        for fd in by_name[address.name]:
            what = f"descriptor {fd} of {address}"
            sock = stack.enter_context(_duplicate(fd, what))
            os.set_inheritable(fd, False)  # as sd_listen_fds(3) does
            if _is_datagram(sock) == address.is_datagram:
                _check(sock, what)
                found.append(sock)
            else:
                others.append(f"{what} is {_kind_of(sock)}")
                sock.close()
        if not found:
            raise CannotBind(errno.EPROTOTYPE, f"{', '.join(others)}: {_instead(address)}")
        stack.pop_all()
    return found


def _duplicate(fd: int, what: str) -> socket.socket:
    try:
        duplicate = os.dup(fd)
    except OSError as error:
        raise CannotBind(error.errno, f"{what} is not open") from error
    try:
        return socket.socket(fileno=duplicate)
    except OSError as error:
        os.close(duplicate)
        raise CannotBind(error.errno, f"{what} is not a socket") from error


def _check(sock: socket.socket, what: str) -> None:
    """Refuse a socket that can never be listened on."""
    if sock.family not in FAMILIES or (sock.family == socket.AF_UNIX and _is_datagram(sock)):
        raise CannotBind(errno.EAFNOSUPPORT, f"{what} is {_kind_of(sock)}: only internet and Unix stream sockets serve")
    try:
        sock.getpeername()
    except OSError:
        pass
    else:
        raise CannotBind(errno.EISCONN, f"{what} is already connected: a listening or bound socket is needed")
    name = sock.getsockname()
    if not name or (sock.family != socket.AF_UNIX and name[1] == 0):
        raise CannotBind(errno.EINVAL, f"{what} is bound to no address: call bind() first")


def _is_datagram(sock: socket.socket) -> bool:
    return sock.type != socket.SOCK_STREAM


def _kind_of(sock: socket.socket) -> str:
    """Family and type in words, as in "an AF_INET SOCK_DGRAM socket (127.0.0.1:53)"."""
    names = [getattr(value, "name", str(value)) for value in (sock.family, sock.type)]
    return f"an {' '.join(names)} socket ({describe_socket(sock)})"


def _instead(address: Address) -> str:
    stream = str(address).rpartition("://")[2]
    # Only what is served is proposed.
    place = f' Did you mean "{stream}"?' if address.is_datagram and address.kind != "socket" else ""
    return f"{address.transport} needs {'datagrams' if address.is_datagram else 'a stream'}.{place}"
