"""Opening the sockets of an address: all of them or none."""

from __future__ import annotations

import errno
import logging
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias, cast

import anyio
import anyio.to_thread

from esockd_core._address import Address, Transport, describe_socket, format_host_port
from esockd_core._errors import AddressInUse, CannotBind, SocketError
from esockd_core._inherited import inherited_sockets, is_listening
from esockd_core._port_holder import find_port_holder
from esockd_core._tcp_options import TcpOptions
from esockd_core._unix_socket import SocketFile, UnixOptions, bind_unix_path, locked_path

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("esockd_core")

PORT_ATTEMPTS: Final = 16
"""Times another free port is asked for when the one the kernel chose for the first socket is taken for another."""

SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")

SockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]


class Endpoint(NamedTuple):
    """One address that one socket is bound to."""

    family: socket.AddressFamily
    sockaddr: SockAddr

    def with_port(self, port: int) -> Endpoint:
        """The same host with another port."""
        return Endpoint(self.family, cast("SockAddr", (self.sockaddr[0], port, *self.sockaddr[2:])))

    def __str__(self) -> str:
        return format_host_port(self.sockaddr[0], self.sockaddr[1])


IPV4_LOOPBACK: Final = Endpoint(socket.AF_INET, ("127.0.0.1", 0))
IPV6_LOOPBACK: Final = Endpoint(socket.AF_INET6, ("::1", 0, 0, 0))
IPV4_ANY: Final = Endpoint(socket.AF_INET, ("0.0.0.0", 0))  # noqa: S104 (what "*" asks for)
IPV6_ANY: Final = Endpoint(socket.AF_INET6, ("::", 0, 0, 0))


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


class _BindFailure(Exception):  # noqa: N818 (an OSError and where it happened, for `_explain`)
    def __init__(self, endpoint: Endpoint, error: OSError) -> None:
        super().__init__(endpoint, error)
        self.endpoint = endpoint
        self.error = error


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
        InvalidOption: Mode or owner given for a path that is no file.
    """
    tcp, unix = tcp or TcpOptions(), unix or UnixOptions()
    match address.kind:
        case "unix":
            opened = _open_unix(address, tcp, unix)
        case "systemd" | "fd" | "socket":
            opened = _adopt(address, tcp)
        case _:
            endpoints = await _resolve(address)
            try:
                sockets = _bind_on_one_port(endpoints, tcp, datagram=address.is_datagram)
            except _BindFailure as failure:
                raise await _explain(failure, datagram=address.is_datagram) from failure.error
            opened = ListeningSockets(sockets, address.transport)
    if not address.is_datagram:
        _warn_of_capped_backlog(tcp.backlog)
    return opened


async def _resolve(address: Address) -> list[Endpoint]:
    """The endpoints of an internet address, without repetitions."""
    port = address.port or 0
    if address.kind == "loopback":
        return [IPV4_LOOPBACK.with_port(port), IPV6_LOOPBACK.with_port(port)]
    if address.kind == "everywhere":
        return [IPV4_ANY.with_port(port), IPV6_ANY.with_port(port)]
    kind = socket.SOCK_DGRAM if address.is_datagram else socket.SOCK_STREAM
    try:
        found = await anyio.getaddrinfo(str(address.host), port, type=kind)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CannotBind(errno.EADDRNOTAVAIL, f'cannot resolve "{address.host}": {reason}') from error
    return list(dict.fromkeys(Endpoint(socket.AddressFamily(family), addr) for family, _, _, _, addr in found))


def _bind_on_one_port(endpoints: list[Endpoint], tcp: TcpOptions, *, datagram: bool) -> list[socket.socket]:
    """Bind and listen; with port 0, try again while the port found for the first is taken for another."""
    chosen_by_kernel = endpoints[0].sockaddr[1] == 0
    for attempts_left in reversed(range(PORT_ATTEMPTS)):
        try:
            return _bind_all(endpoints, tcp, datagram=datagram)
        except _BindFailure as failure:
            if not (attempts_left and chosen_by_kernel and failure.error.errno == errno.EADDRINUSE):
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _bind_all(endpoints: list[Endpoint], tcp: TcpOptions, *, datagram: bool) -> list[socket.socket]:
    """Bind every socket, then listen on every socket: no client gets in before all is known to be well."""
    bound: dict[Endpoint, socket.socket] = {}
    missing: _BindFailure | None = None
    with ExitStack() as stack:
        for wanted in endpoints:
            first = next(iter(bound.values()), None)
            endpoint = wanted if first is None else wanted.with_port(first.getsockname()[1])
            try:
                bound[endpoint] = stack.enter_context(_bind(endpoint, tcp, datagram=datagram))
            except OSError as error:
                missing = _BindFailure(endpoint, error)
                if not _is_missing_family(missing):
                    raise missing from error
        if not bound and missing is not None:
            raise missing from missing.error
        for endpoint, sock in bound.items():
            try:
                if not datagram:
                    sock.listen(tcp.backlog)
            except OSError as error:
                raise _BindFailure(endpoint, error) from error
        stack.pop_all()
    return list(bound.values())


def _bind(endpoint: Endpoint, tcp: TcpOptions, *, datagram: bool) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM)
    try:
        if endpoint.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        # For UDP on Linux, SO_REUSEADDR would let another program take over the port: for streams only.
        if tcp.reuse_address and not datagram:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        if tcp.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
        if not datagram:
            tcp.apply_to_listener(sock)
        sock.bind(endpoint.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_missing_family(failure: _BindFailure) -> bool:
    """Whether the kernel lacks IPv6 (or IPv4) altogether: then the other family does alone."""
    return failure.error.errno == errno.EAFNOSUPPORT or (
        failure.error.errno == errno.EADDRNOTAVAIL
        and failure.endpoint.sockaddr[0] in (IPV4_LOOPBACK.sockaddr[0], IPV6_LOOPBACK.sockaddr[0])
    )


def _open_unix(address: Address, tcp: TcpOptions, unix: UnixOptions) -> ListeningSockets:
    path = str(address.path)
    file: SocketFile | None = None
    with locked_path(path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            file = bind_unix_path(sock, path, unix)
            tcp.apply_to_listener(sock)
            sock.listen(tcp.backlog)
        except BaseException as error:
            if file is not None:
                file.remove()
            sock.close()
            if not isinstance(error, OSError) or isinstance(error, SocketError):
                raise
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(error.errno, f"unix:{path} is already in use. See: ss -lxp") from error
            raise CannotBind(error.errno, f"cannot listen on unix:{path}: {error.strerror}") from error
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
                except OSError as error:
                    text = f"cannot listen on {describe_socket(sock)}, inherited as {address}: {error.strerror}"
                    raise CannotBind(error.errno, text) from error
        stack.pop_all()
    return ListeningSockets(sockets, address.transport)


def _warn_of_capped_backlog(backlog: int) -> None:
    try:
        cap = int(SOMAXCONN.read_text())
    except (OSError, ValueError):
        return
    if backlog > cap:
        logger.warning(
            "backlog %d is capped by the kernel to %d; raise net.core.somaxconn to change that", backlog, cap
        )


async def _explain(failure: _BindFailure, *, datagram: bool) -> SocketError:
    """Say in words why an address could not be bound, and what to do."""
    endpoint, number = failure.endpoint, failure.error.errno or 0
    host, port = endpoint.sockaddr[:2]
    match number:
        case errno.EADDRINUSE:
            holder = await anyio.to_thread.run_sync(lambda: find_port_holder(host, port, datagram=datagram))
            by = f" by {holder}" if holder else ""
            hint = f"ss -l{'u' if datagram else 't'}np 'sport = :{port}'"
            return AddressInUse(number, f"{endpoint} is already in use{by}. Try port 0, or: {hint}")
        case errno.EACCES:
            why = "ports below 1024 need root or CAP_NET_BIND_SERVICE. Try a higher one"
        case errno.EADDRNOTAVAIL:
            why = "it is not an address of this machine. See: ip address"
        case _:
            why = failure.error.strerror or str(failure.error)
    return CannotBind(number, f"cannot listen on {endpoint}: {why}")
