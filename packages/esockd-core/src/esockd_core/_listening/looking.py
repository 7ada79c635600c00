"""A listener's connections and sources as plain values."""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint

from esockd_cidr import AccessList, CidrError
from esockd_core._connection.datagram import DatagramBase
from esockd_core._connection.names import host_of
from esockd_core._errors import InvalidOption
from esockd_core._stats.counters import Stats
from esockd_core._stats.top_sources import KEPT, TopSource, source_text
from esockd_core.control.values import MAX_PAGE, ConnectionInfo, ConnectionPage
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._admission.admission import Admission
    from esockd_core._connection.registry import Registry
    from esockd_core._connection.served import ServedConnection
    from esockd_core._connection.site import Site


TURN_CONNECTIONS: Final = 2_000  # looked at before the event loop gets its turn: about 0.3 ms


def describe_connection(connection: ServedConnection) -> ConnectionInfo:
    """A connection as plain values."""
    return ConnectionInfo(
        id=connection.id,
        peername=connection.peername,
        socket_peername=connection.socket_peername,
        sockname=connection.sockname,
        state=connection.state,
        opened_at=connection.opened_at,
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        draining=connection.draining,
        tls=connection.tls,
    )


def find_connections(registry: Registry, network: str) -> Iterator[ServedConnection]:
    """The connections of clients within a network, including those that are entering.

    Args:
        registry: The listener's registry.
        network: An address or network, as in an access rule. Behind a proxy, a client is the one in the PROXY header.

    Raises:
        InvalidOption: If it is not a network.
    """
    wanted = _network(network)
    for connection in registry:
        if wanted.allows(host_of(connection.peername)):
            yield connection


def page_of_connections(registry: Registry, network: str | None, after: int, limit: int) -> ConnectionPage:
    """A page of the connections that have passed their entrance, by id.

    Raises:
        InvalidOption: If it is not a network, or if the limit is out of bounds.
    """
    check_bound("limit", limit, MAX_PAGE)
    wanted = None if network is None else _network(network)
    found = nsmallest(
        limit + 1,
        (
            connection
            for connection in list(registry.connections.values())
            if connection.id > after and (wanted is None or wanted.allows(host_of(connection.peername)))
        ),
        key=lambda connection: connection.id,
    )
    page = found[:limit]
    return ConnectionPage(
        tuple(describe_connection(each) for each in page), page[-1].id if len(found) > limit else None
    )


def top_sources(site: Site, most: int) -> tuple[TopSource, ...]:
    """The sources that come most often, most frequent first.

    Raises:
        InvalidOption: If `most` is out of bounds.
    """
    check_bound("most", most, KEPT)
    open_by_source: dict[str, int] = {}
    counted = site.counters.sources.top(most)
    for connection in site.registry:
        source = source_text(source_key(host_of(connection.peername)))
        open_by_source[source] = open_by_source.get(source, 0) + 1
    return tuple(
        TopSource(text, count, open_by_source.get(text, 0)) for text, count in ((source_text(s), n) for s, n in counted)
    )


def count_bytes(site: Site) -> tuple[int, int]:
    """The bytes received and handed over, with those of open connections, at this moment."""
    counters, open_ones = site.counters, site.registry.every()
    return (
        counters.bytes_in + sum([connection.bytes_in for connection in open_ones]),
        counters.bytes_out + sum([connection.bytes_out for connection in open_ones]),
    )


async def count_bytes_in_turns(site: Site) -> tuple[int, int]:
    """The same, with turns for the event loop while there are very many connections.

    Each connection counts with what it has at its turn, even if it has ended by then. So the answer lies between the
    true ones at the begin and at the end, and a later answer is never less.
    """
    bytes_in, bytes_out = site.counters.bytes_in, site.counters.bytes_out
    open_ones = site.registry.every()
    for begin in range(0, len(open_ones), TURN_CONNECTIONS):
        if begin:
            await checkpoint()
        turn = open_ones[begin : begin + TURN_CONNECTIONS]
        bytes_in += sum([connection.bytes_in for connection in turn])
        bytes_out += sum([connection.bytes_out for connection in turn])
    return bytes_in, bytes_out


def snapshot(
    site: Site, admission: Admission, accept_queue: tuple[int, int] | None, all_bytes: tuple[int, int]
) -> Stats:
    """Every counter at this moment.

    Args:
        site: The parts of the listener.
        admission: The listener's admission.
        accept_queue: Length and limit of the kernel's accept queue; None if unknown.
        all_bytes: The bytes received and handed over, with those of open connections.
    """
    counters = site.counters
    for port in site.ports:
        port.look_at_kernel()
    peers = [each for each in site.registry if isinstance(each, DatagramBase)] if site.ports else []
    return Stats(
        accepted=counters.accepted,
        closed_early=counters.closed_early,
        closed_forbidden=counters.closed_forbidden,
        closed_max_limit=counters.closed_max_limit,
        closed_rate_limited=counters.closed_rate_limited,
        closed_overloaded=counters.closed_overloaded,
        closed_other_reasons=counters.closed_other_reasons,
        closed_sys_limit=counters.closed_sys_limit,
        current_connections=admission.open_count,
        max_connections=admission.max_connections,
        bytes_in=all_bytes[0],
        bytes_out=all_bytes[1],
        shutdown_counts=dict(counters.shutdown_counts),
        entering=len(site.waiting),
        accept_queue_length=None if accept_queue is None else accept_queue[0],
        accept_queue_limit=None if accept_queue is None else accept_queue[1],
        loop_lag=admission.loop_lag_s,
        loop_lags=counters.loop_lags.snapshot(),
        accept_delays=counters.accept_delays.snapshot(),
        handshakes=counters.handshakes.snapshot(),
        lifetimes=counters.lifetimes.snapshot(),
        datagrams_in=counters.datagrams_in,
        datagrams_out=counters.datagrams_out + sum(each.datagrams_out for each in peers),
        datagrams_delivered=counters.datagrams_delivered + sum(each.datagrams_taken() for each in peers),
        datagrams_waiting=sum(each.datagrams_waiting() for each in peers),
        datagrams_answered=counters.datagrams_answered,
        datagrams_dropped=dict(counters.datagrams_dropped),
        datagrams_unsent=dict(counters.datagrams_unsent),
    )


def check_bound(name: str, value: object, most: int) -> None:
    """Refuse what is not a whole number from 1 to `most`.

    Raises:
        InvalidOption: If it is not one.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidOption(f"it takes a whole number from 1 to {most}", option=name, value=value)


def _network(text: str) -> AccessList:
    try:
        return AccessList([("allow", text)], "deny")
    except CidrError as error:
        raise InvalidOption.because(error, "network", text) from error
