"""Opening the sockets of an address: all of them or none."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from esockd_core._address import Address, Transport, describe_socket
from esockd_core._errors import CannotBind, InvalidOption, SocketError
from esockd_core._inherited import inherited_sockets, is_listening
from esockd_core._internet import open_internet_sockets
from esockd_core._tcp_options import FOR_DATAGRAMS, FOR_UNIX, TcpOptions
from esockd_core._unix_socket import SocketFile, UnixOptions, bind_unix_path, locked_path

if TYPE_CHECKING:
    from types import TracebackType


class ListeningSockets:
    """The open sockets of one address, non-blocking, streams listening.

    Attributes:
        sockets: In the order of the address's hosts, IPv4 before IPv6 where one stands for both.
        addresses: What each is bound to, as text that `parse_address` reads, with the real port.
    """

    __slots__ = ("_file", "addresses", "sockets")

    def __init__(self, sockets: list[socket.socket], transport: Transport, file: SocketFile | None = None) -> None:
        self.sockets: tuple[socket.socket, ...] = tuple(sockets)
        scheme = "" if transport in ("tcp", "unix") else f"{transport}://"
        self.addresses: tuple[str, ...] = tuple(scheme + describe_socket(sock) for sock in sockets)
        self._file = file
        for sock in sockets:
            sock.setblocking(False)

    @property
    def port(self) -> int | None:
        """The port of the first socket, which all of one address share; None for a Unix socket."""
        match self.sockets[0].getsockname():
            case (_, int() as port, *_):
                return port
        return None

    def close(self) -> None:
        """Remove the Unix path if it is still ours, then close every socket. Calling it again does nothing."""
        if self._file is not None:
            self._file.remove()
            self._file = None
        for sock in self.sockets:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def open_sockets(
    address: Address, tcp: TcpOptions | None = None, unix: UnixOptions | None = None
) -> ListeningSockets:
    """Open every socket that an address stands for, or none.

    A host name opens one socket for each address it resolves to. IPv6 sockets never take IPv4 clients (IPV6_V6ONLY), so
    every client shows its own kind of address. `5000` and `*:5000` do with one family where the machine has only one.
    Port 0 gives all sockets one and the same free port.

    Args:
        address: What to open.
        tcp: Options of stream sockets; defaults when None. Datagram sockets take `reuse_port` from it.
        unix: Mode and owner of a Unix path; defaults when None.

    Returns:
        The sockets, non-blocking; streams are listening, with every option set that connections inherit.

    Raises:
        AddressInUse: Somebody else listens there; the message says who, where that can be seen.
        CannotBind: The name does not resolve, the kernel refuses, or what is inherited does not fit.
        InvalidOption: An option is given that does not apply to the address.
    """
    tcp, unix = tcp or TcpOptions(), unix or UnixOptions()
    require_applicable(address, tcp, unix)
    match address.kind:
        case "unix":
            opened = _open_unix(address, tcp, unix)
        case "systemd" | "fd" | "socket":
            opened = _adopt(address, tcp)
        case _:
            opened = ListeningSockets(await open_internet_sockets(address, tcp), address.transport)
    if not address.is_datagram:
        tcp.warn_of_capped_buffers(opened.sockets[0])
    return opened


def require_applicable(address: Address, tcp: TcpOptions, unix: UnixOptions) -> None:
    """Refuse options that would silently do nothing.

    Raises:
        InvalidOption: One does not apply to the address.
    """
    if address.kind != "unix" and unix != UnixOptions():
        raise InvalidOption(f"mode, owner and group apply to unix:PATH, not to {address}")
    if address.kind == "unix":
        tcp.require_only(FOR_UNIX, "Unix sockets")
    if address.is_datagram:
        tcp.require_only(FOR_DATAGRAMS, "datagrams")


def _open_unix(address: Address, tcp: TcpOptions, unix: UnixOptions) -> ListeningSockets:
    path = str(address.path)
    try:
        with locked_path(path), ExitStack() as stack:
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
        raise CannotBind(error.errno, f"cannot listen on unix:{path}: {error.strerror}") from error
    tcp.warn_of_capped_backlog()
    return ListeningSockets([sock], address.transport, file)


def _adopt(address: Address, tcp: TcpOptions) -> ListeningSockets:
    """Take over sockets that somebody else opened: one that listens keeps its backlog."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in inherited_sockets(address)]
        if not address.is_datagram:
            for sock in sockets:
                try:
                    tcp.apply_to_listener(sock)
                    if not is_listening(sock):
                        sock.listen(tcp.backlog)
                        tcp.warn_of_capped_backlog()
                except OSError as error:
                    text = f"cannot listen on {describe_socket(sock)}, inherited as {address}: {error.strerror}"
                    raise CannotBind(error.errno, text) from error
        stack.pop_all()
    return ListeningSockets(sockets, address.transport)
