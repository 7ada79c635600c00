"""PROXY headers of datagrams: each carries its own, because each may come alone (PP 2).

dnsdist, PowerDNS and BIND 9 send and read them so. One socket of a proxy speaks for many clients: a peer is known by
the proxy's address together with the source in the header. Replies go to the proxy, without a header. In front of DTLS
it is the same: the header stands before the records, and is not encrypted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from esockd_core._connection.entrance import EntranceRefused, ProxiedClient
from esockd_core._connection.names import name_of_endpoint
from esockd_core._stats.counters import Dropped
from esockd_core._stats.reasons import SOURCE_FORBIDDEN, SOURCE_MAX_LIMIT, SOURCE_RATE_LIMITED
from esockd_core._tls.facts import describe_tls_at_proxy
from esockd_proxyproto import InvalidHeader, InvalidTlv, decode_datagram

if TYPE_CHECKING:
    from collections.abc import Hashable

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import PeerName

CAUSES: Final = {
    SOURCE_FORBIDDEN: Dropped.FORBIDDEN,
    SOURCE_MAX_LIMIT: Dropped.MAX_LIMIT,
    SOURCE_RATE_LIMITED: Dropped.RATE_LIMITED,
}


class ProxiedKey(NamedTuple):
    """What the datagrams of a client behind a proxy are known by.

    Attributes:
        proxy: What those of the proxy itself are known by.
        source: The client that the header names; None if it names none.
    """

    proxy: Any
    source: PeerName | None


def own_key(key: Any) -> Any:
    """What the datagrams of the socket's peer are known by, with or without a client behind it."""
    return key.proxy if type(key) is ProxiedKey else key


def read_header(datagram: bytes) -> tuple[ProxiedClient, bytes] | None:
    """The client that a datagram's header names, and the payload after it; None without a valid header."""
    try:
        header, payload = decode_datagram(datagram)
        tls = describe_tls_at_proxy(header)
    except (InvalidHeader, InvalidTlv):
        return None
    source = None if header.source is None else name_of_endpoint(header.source)
    return ProxiedClient(header, source, tls), payload


def key_behind(key: Hashable, client: ProxiedClient) -> ProxiedKey:
    """What the datagrams of this client are known by."""
    return ProxiedKey(key, client.source)


def admits_source(site: Site, connection: DatagramBase, client: ProxiedClient) -> bool:
    """Judge the client of an admitted connection, and end the connection if it is refused."""
    connection.client = client
    connection.opened_at = time.time()  # which a rehearsal asks for
    try:
        site.judge.admit_source(connection)
    except EntranceRefused as refused:
        site.counters.count_dropped(CAUSES.get(refused.reason, Dropped.OTHER))
        site.registry.enter(connection)
        connection.note_reason(refused.reason)
        connection.ended(refused.reason)
        return False
    return True
