"""Opening the sockets of an address: all of them or none."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from esockd_core._address import Address, Transport, describe_socket
from esockd_core._errors import CannotBind, InvalidOption, SocketError
from esockd_core._options.tcp import FOR_UNIX, TcpOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._platform.error_queue import queue_no_errors
from esockd_core._platform.listening import is_listening
from esockd_core._platform.open_files import hint_of
from esockd_core._platform.unix_sockets import HAS_ABSTRACT_NAMES, MAX_PATH_BYTES
from esockd_core._sockets.handed_over import note_open, take
from esockd_core._sockets.inherited import inherited_sockets
from esockd_core._sockets.internet import open_internet_sockets
from esockd_core._sockets.unix import SocketFile, bind_unix_path, claimed_path

if TYPE_CHECKING:
    from types import TracebackType

    from esockd_core._sockets.handed_over import HandedOver


class ListeningSockets:
    """The open sockets of one address, non-blocking, streams listening.

    Attributes:
        sockets: In the order of the address's hosts, IPv4 before IPv6 if one host stands for both.
        names: The address of each socket, with the real port, as text that `parse_address` reads.
        addresses: The same, each address once: sockets of a group share one.
        shares: The same sockets by the worker that has them, and those of other workers; all in one without workers.
        asked: The address as it was asked for.
        is_own: Whether this program has opened them itself, so that nobody else accepts on them.
        is_left: Whether another program has taken over the address, whose file must stay.
        is_lent: Whether the program before may still go on with the address, whose file and queue are its own so far.
    """

    __slots__ = (
        "__weakref__",
        "_file",
        "addresses",
        "asked",
        "is_left",
        "is_lent",
        "is_own",
        "names",
        "shares",
        "sockets",
    )

    def __init__(self, sockets: list[socket.socket], transport: Transport, file: SocketFile | None = None) -> None:
        self.sockets: tuple[socket.socket, ...] = tuple(sockets)
        self.shares: tuple[tuple[socket.socket, ...], ...] = (self.sockets,)
        self.asked: str = ""
        self.is_own: bool = False
        self.is_left: bool = False
        self.is_lent: bool = False
        scheme = "" if transport in ("tcp", "unix") else f"{transport}://"
        self.names: tuple[str, ...] = tuple(scheme + describe_socket(sock) for sock in sockets)
        self.addresses: tuple[str, ...] = tuple(dict.fromkeys(self.names))
        self._file = file
        for sock in sockets:
            sock.setblocking(False)

    @property
    def port(self) -> int | None:
        """The port that all sockets share; None for a Unix socket."""
        match self.sockets[0].getsockname():
            case (_, int() as port, *_):
                return port
        return None

    def close(self) -> None:
        """Remove the Unix path if it is still ours, then close every socket. Calling it again does nothing."""
        if self._file is not None:
            if not (self.is_left or self.is_lent):
                self._file.remove()
            self._file = None
        for sock in self.sockets:
            sock.close()

    @property
    def file_identity(self) -> tuple[int, int] | None:
        """Device and inode of the file of a Unix socket; None if it has none."""
        return None if self._file is None else self._file.identity

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def open_sockets(
    address: Address,
    tcp: TcpOptions | None = None,
    unix: UnixOptions | None = None,
    udp: UdpOptions | None = None,
) -> ListeningSockets:
    """Open every socket that an address stands for, or none.

    Sockets of this address that came from the program before this one are taken instead (see `esockd_core.upgrade`).

    A host name opens one socket for each address that it resolves to. IPv6 sockets never take IPv4 clients
    (IPV6_V6ONLY), so every client shows its own kind of address. On a machine with only one family, `5000` and `*:5000`
    open that one. With port 0, all sockets get the same free port.

    Args:
        address: The address to open.
        tcp: Options of stream sockets; defaults when None.
        unix: Mode and owner of a Unix path; defaults when None.
        udp: Options of datagram sockets; defaults when None.

    Returns:
        The sockets, non-blocking; streams are listening, with every option set that connections inherit.

    Raises:
        AddressInUse: If somebody else listens there. The message says who, if that can be found out.
        CannotBind: If the name does not resolve, the kernel refuses, or an inherited socket does not fit.
        InvalidOption: If an option is given that does not apply to the address.
    """
    tcp, unix, udp = tcp or TcpOptions(), unix or UnixOptions(), udp or UdpOptions()
    require_applicable(address, tcp, unix, udp)
    handed = None if address.kind == "socket" else take(str(address))
    if handed is not None:
        opened = _take_over(address, handed, tcp, unix, udp)
    else:
        match address.kind:
            case "unix":
                opened = _open_unix(address, tcp, unix)
            case "systemd" | "fd" | "socket":
                opened = _adopt(address, tcp, udp)
            case _:
                opened = ListeningSockets(await open_internet_sockets(address, tcp, udp), address.transport)
    opened.is_own = handed is None and address.kind not in ("systemd", "fd", "socket")
    if address.kind != "socket":
        opened.asked = str(address)
        note_open(opened)
    if handed is not None and handed.is_own:
        return opened
    if udp.multicast:
        _join(opened, udp)
    (udp if address.is_datagram else tcp).warn_of_capped_buffers(opened.sockets[0])
    return opened


def _join(opened: ListeningSockets, udp: UdpOptions) -> None:
    """Join multicast groups, or close the sockets."""
    with ExitStack() as stack:
        stack.callback(opened.close)
        try:
            udp.join(opened.sockets)
        except OSError as error:
            groups = ", ".join(udp.multicast)
            raise CannotBind(error.errno, f"cannot join {groups}: {error.strerror or error}") from error
        stack.pop_all()


def require_applicable(address: Address, tcp: TcpOptions, unix: UnixOptions, udp: UdpOptions) -> None:
    """Refuse options that would silently do nothing.

    Raises:
        InvalidOption: If one does not apply to the address.
    """
    if address.path is not None:
        _require_path(address.path, unix)
    elif unix != UnixOptions():
        raise InvalidOption(f"mode, owner and group apply to unix:PATH, not to {address}", option="unix")
    if address.is_datagram:
        tcp.require_only(frozenset(), "datagrams")
    else:
        udp.require_default("streams")
    if address.kind == "unix":
        tcp.require_only(FOR_UNIX, "Unix sockets")


def _require_path(path: str, unix: UnixOptions) -> None:
    if path.startswith("@"):
        if not HAS_ABSTRACT_NAMES:
            reason = "only Linux has Unix sockets without a file"
            raise InvalidOption(reason, option="address", value=f"unix:{path}", hint="Write unix:/path.")
        if unix != UnixOptions():
            raise InvalidOption(f"unix:{path} is not a file: mode, owner and group do not apply to it", option="unix")
    elif (length := len(os.fsencode(path))) > MAX_PATH_BYTES:
        reason = f"the path has {length} bytes; on this system a Unix socket's has at most {MAX_PATH_BYTES}"
        raise InvalidOption(reason, option="address", value=f"unix:{path}")


def _open_unix(address: Address, tcp: TcpOptions, unix: UnixOptions) -> ListeningSockets:
    path = str(address.path)
    try:
        with claimed_path(path), ExitStack() as stack:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            tcp.apply_to_listener(sock)
            file = bind_unix_path(sock, path, unix)
            if file is not None:
                stack.callback(file.remove)
            sock.listen(tcp.backlog)
            stack.pop_all()
    except SocketError:
        raise
    except OSError as error:
        raise CannotBind(
            error.errno, f"cannot listen on unix:{path}: {error.strerror}", hint_of(error.errno)
        ) from error
    tcp.warn_of_capped_backlog()
    return ListeningSockets([sock], address.transport, file)


def _take_over(
    address: Address, handed: HandedOver, tcp: TcpOptions, unix: UnixOptions, udp: UdpOptions
) -> ListeningSockets:
    """Go on with the sockets of the program before this one."""
    file = None
    with ExitStack() as stack:
        try:
            shares = tuple(
                tuple(stack.enter_context(socket.socket(fileno=descriptor)) for descriptor in share)
                for share in handed.shares
            )
            sockets = [sock for share in shares for sock in share]
            for sock in sockets:
                if address.is_datagram:
                    udp.apply(sock)
                    queue_no_errors(sock)
                else:
                    tcp.apply_to_listener(sock)
                    if address.kind not in ("systemd", "fd"):
                        sock.listen(tcp.backlog)  # listen(2): again, for the length of the queue that is asked for now
            if handed.file is not None:
                file = SocketFile(str(address.path), handed.file)
                file.set_owner(unix)
        except OSError as error:
            text = f"cannot go on listening on {address}, which came from the program before: {error.strerror}"
            raise CannotBind(error.errno, text) from error
        stack.pop_all()
    opened = ListeningSockets(sockets, address.transport, file)
    opened.shares = shares
    opened.is_lent = handed.is_lent
    return opened


def _adopt(address: Address, tcp: TcpOptions, udp: UdpOptions) -> ListeningSockets:
    """Take over sockets that somebody else opened. One that already listens keeps its backlog."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in inherited_sockets(address)]
        for sock in sockets:
            try:
                if address.is_datagram:
                    udp.apply(sock)
                    queue_no_errors(sock)
                else:
                    tcp.apply_to_listener(sock)
                    if not is_listening(sock):
                        sock.listen(tcp.backlog)
                        tcp.warn_of_capped_backlog()
            except OSError as error:
                text = f"cannot listen on {describe_socket(sock)}, inherited as {address}: {error.strerror}"
                raise CannotBind(error.errno, text) from error
        stack.pop_all()
    return ListeningSockets(sockets, address.transport)
