"""Opening the TCP or UDP sockets of a port, a host or a name: all on one port, all or none."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

import anyio
import anyio.to_thread

from esockd_core._address import Address, format_host_port, is_ip_address
from esockd_core._errors import AddressInUse, CannotBind, SocketError
from esockd_core._platform.commands import SHOW_ADDRESSES, show_port_holder
from esockd_core._platform.low_ports import PRIVILEGE, first_free_port
from esockd_core._platform.open_files import hint_of
from esockd_core._platform.port_holder import find_holder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esockd_core._options.tcp import TcpOptions
    from esockd_core._options.udp import UdpOptions

PORT_ATTEMPTS: Final = 16
"""How often to ask for another free port, if the one chosen for the first socket is taken for another."""

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


class _BindFailure(Exception):  # noqa: N818 (an OSError and where it happened, for `_explain`)
    def __init__(self, endpoint: Endpoint, error: OSError) -> None:
        super().__init__(endpoint, error)
        self.endpoint = endpoint
        self.error = error


async def open_internet_sockets(address: Address, tcp: TcpOptions, udp: UdpOptions) -> list[socket.socket]:
    """Open one socket for each endpoint of an address of kind `loopback`, `everywhere` or `host`.

    Raises:
        AddressInUse: If somebody else has one of them.
        CannotBind: If the name does not resolve, or the kernel refuses.
    """
    endpoints = await _resolve(address)
    try:
        return _bind_on_one_port(endpoints, tcp, udp if address.is_datagram else None)
    except _BindFailure as failure:
        raise await _explain(failure, address) from failure.error


async def require_permission(address: Address) -> None:
    """See that this process may open the port of an address, which it may have open already.

    Raises:
        CannotBind: If the port needs a privilege that this process has lost, or if the name does not resolve.
    """
    if not 0 < (address.port or 0) < first_free_port():
        return
    kind = socket.SOCK_DGRAM if address.is_datagram else socket.SOCK_STREAM
    for endpoint in await _resolve(address):
        try:
            with socket.socket(endpoint.family, kind) as probe:
                probe.bind(endpoint.sockaddr)
        except OSError as error:
            if error.errno == errno.EACCES:  # the kernel asks for the privilege before it looks who has the port
                raise await _explain(_BindFailure(endpoint, error), address) from error


async def _resolve(address: Address) -> list[Endpoint]:
    """The endpoints of an internet address, without repetitions."""
    port = address.port or 0
    if address.kind == "loopback":
        return [IPV4_LOOPBACK.with_port(port), IPV6_LOOPBACK.with_port(port)]
    if address.kind == "everywhere":
        return [IPV4_ANY.with_port(port), IPV6_ANY.with_port(port)]
    host = str(address.host)
    kind = socket.SOCK_DGRAM if address.is_datagram else socket.SOCK_STREAM
    found: Iterable[tuple[int, object, object, object, object]]
    try:
        if is_ip_address(host):
            # Asks no server and does not block; uvloop's own would ignore an interface that does not exist.
            found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
        else:
            found = await anyio.getaddrinfo(host, port, type=kind)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CannotBind(errno.EADDRNOTAVAIL, f'cannot resolve "{host}": {reason}') from error
    endpoints = (Endpoint(socket.AddressFamily(entry[0]), cast("SockAddr", entry[4])) for entry in found)
    return list(dict.fromkeys(endpoints))


def _bind_on_one_port(endpoints: list[Endpoint], tcp: TcpOptions, udp: UdpOptions | None) -> list[socket.socket]:
    """Bind and listen. With port 0, try again while the port of the first socket is taken for another."""
    if endpoints[0].sockaddr[1] == 0:
        for _ in range(PORT_ATTEMPTS - 1):
            try:
                return _bind_all(endpoints, tcp, udp)
            except _BindFailure as failure:
                if failure.error.errno != errno.EADDRINUSE:
                    raise
    return _bind_all(endpoints, tcp, udp)


def _bind_all(endpoints: list[Endpoint], tcp: TcpOptions, udp: UdpOptions | None) -> list[socket.socket]:
    """Bind every socket, then listen on every socket, so that no client gets in before all have succeeded."""
    bound: dict[Endpoint, socket.socket] = {}
    missing: _BindFailure | None = None
    with ExitStack() as stack:
        for wanted in endpoints:
            first = next(iter(bound.values()), None)
            endpoint = wanted if first is None else wanted.with_port(first.getsockname()[1])
            try:
                bound[endpoint] = stack.enter_context(bind_endpoint(endpoint, tcp, udp))
            except OSError as error:
                missing = _BindFailure(endpoint, error)
                if not _is_missing_family(missing):
                    raise missing from error
        if not bound and missing is not None:
            raise missing from missing.error
        for endpoint, sock in bound.items():
            try:
                if udp is None:
                    sock.listen(tcp.backlog)
            except OSError as error:
                raise _BindFailure(endpoint, error) from error
        stack.pop_all()
    if udp is None:
        tcp.warn_of_capped_backlog()
    return list(bound.values())


def bind_endpoint(endpoint: Endpoint, tcp: TcpOptions, udp: UdpOptions | None) -> socket.socket:
    """Bind a socket to one address, with the options that have to be set before.

    Args:
        endpoint: The address.
        tcp: Options of stream sockets.
        udp: Options of datagram sockets; None for a stream.

    Raises:
        OSError: If the kernel refuses.
    """
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM if udp is None else socket.SOCK_DGRAM)
    try:
        if endpoint.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        if udp is not None:
            # Without SO_REUSEADDR, with which another program could take over the port of a UDP socket on Linux.
            udp.apply_before_bind(sock)
            udp.apply(sock)
        else:
            if tcp.reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            if tcp.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
            tcp.apply_to_listener(sock)
        sock.bind(endpoint.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_missing_family(failure: _BindFailure) -> bool:
    """Whether the kernel lacks IPv6 (or IPv4) altogether, so that the other family is enough."""
    return failure.error.errno == errno.EAFNOSUPPORT or (
        failure.error.errno == errno.EADDRNOTAVAIL
        and failure.endpoint.sockaddr[0] in (IPV4_LOOPBACK.sockaddr[0], IPV6_LOOPBACK.sockaddr[0])
    )


async def _explain(failure: _BindFailure, address: Address) -> SocketError:
    """Say in words why an address could not be bound, and what to do."""
    endpoint, number = failure.endpoint, failure.error.errno or 0
    hint: str | None = None
    host, port = endpoint.sockaddr[:2]
    match number:
        case errno.EADDRINUSE:
            search = partial(find_holder, host, port, datagram=address.is_datagram)
            holder = await anyio.to_thread.run_sync(search)
            by = f" by {holder}" if holder else ""
            advice = "port 0" if address.port else f"again: {PORT_ATTEMPTS} free ports in a row were taken elsewhere"
            look = show_port_holder(port, datagram=address.is_datagram)
            return AddressInUse(number, f"{endpoint} is already in use{by}", f"Try {advice}, or: {look}")
        case errno.EACCES if port < (free := first_free_port()):
            why, hint = f"ports below {free} need {PRIVILEGE}", "Try a higher one."
        case errno.EADDRNOTAVAIL:
            why, hint = "it is not an address of this machine", f"See: {SHOW_ADDRESSES}"
        case _:
            why, hint = failure.error.strerror or str(failure.error), hint_of(number)
    return CannotBind(number, f"cannot listen on {endpoint}: {why}", hint)
