"""What a listener tells about itself and its connections, as plain values that can travel."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeAlias

from esockd_cidr import AccessList, CidrError
from esockd_core._admission import host_of
from esockd_core._errors import InvalidOption
from esockd_core._top_sources import TopSource, source_text
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._carried import Carried
    from esockd_core._connection import State
    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._service import Service

ListenerState: TypeAlias = Literal["new", "running", "suspended", "draining", "closed"]
MAX_PAGE = 1_000  # connections in one page


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStatus:
    """A listener at one moment.

    Attributes:
        name: Its name.
        address: What it was opened by, as text.
        state: Where it is in its life.
        addresses: What is really bound, one text a socket.
        port: The real port; None for a Unix socket or when not open.
        opened_at: Seconds since the epoch at which it began to accept; None before.
    """

    name: str
    address: str
    state: ListenerState
    addresses: tuple[str, ...]
    port: int | None
    opened_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """A connection at one moment; the attributes are those of `Connection`.

    Attributes:
        is_upgrading: Whether it waits for a PROXY header or is in a TLS handshake: no handler has seen it.
    """

    id: int
    peername: PeerName
    socket_peername: PeerName
    sockname: PeerName
    state: State
    is_upgrading: bool
    opened_at: float
    bytes_in: int
    bytes_out: int
    draining: bool
    tls: TlsInfo | None


@dataclass(frozen=True, slots=True)
class ConnectionPage:
    """Some of many connections.

    Attributes:
        connections: Oldest first.
        after: What to ask for the next page with; None when this is the last.
    """

    connections: tuple[ConnectionInfo, ...]
    after: int | None


def describe_connection(connection: Carried) -> ConnectionInfo:
    """A connection as plain values."""
    return ConnectionInfo(
        id=connection.id,
        peername=connection.peername,
        socket_peername=connection.socket_peername,
        sockname=connection.sockname,
        state=connection.state,
        is_upgrading=connection.is_upgrading,
        opened_at=connection.opened_at,
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        draining=connection.draining,
        tls=connection.tls,
    )


def find_connections(service: Service, network: str | None = None, after: int = 0) -> Iterator[Carried]:
    """The connections of clients within a network, oldest first; None is every client.

    Args:
        service: Of the listener.
        network: An address or network, as in an access rule; a client is who a PROXY header names.
        after: Only those with a greater id.

    Raises:
        InvalidOption: It is no network.
    """
    wanted = None if network is None else _network(network)
    for connection in list(service.connections.values()):
        if connection.id > after and (wanted is None or wanted.allows(host_of(connection.peername))):
            yield connection


def page_of_connections(service: Service, network: str | None, after: int, limit: int) -> ConnectionPage:
    """A page of connections; see `find_connections`."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidOption(f"limit is {limit!r}; a page has 1 to {MAX_PAGE} connections")
    found = list(islice(find_connections(service, network, after), limit + 1))
    page = found[:limit]
    return ConnectionPage(
        tuple(describe_connection(each) for each in page), page[-1].id if len(found) > limit else None
    )


def top_sources(service: Service, most: int) -> tuple[TopSource, ...]:
    """The sources that come most often, the most frequent first."""
    open_by_source: dict[str, int] = {}
    counted = service.counters.sources.top(most)
    for connection in service.connections.values():
        source = source_text(source_key(host_of(connection.peername)))
        open_by_source[source] = open_by_source.get(source, 0) + 1
    return tuple(
        TopSource(text, count, open_by_source.get(text, 0)) for text, count in ((source_text(s), n) for s, n in counted)
    )


def _network(text: str) -> AccessList:
    try:
        return AccessList([("allow", text)], "deny")
    except CidrError as error:
        raise InvalidOption(str(error)) from error
