"""Admission where upgrades follow: the socket's peer is judged at accept, the client of a proxy after its header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_core._admission import Admission
from esockd_core._upgrade import SOURCE_FORBIDDEN, SOURCE_MAX_LIMIT, SOURCE_RATE_LIMITED, Upgraded, UpgradeRefused
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from esockd_cidr import AccessList
    from esockd_core._carried import Carried
    from esockd_core._options import ListenerOptions, PeerName


class BothOf:
    """Two access lists that both have to allow."""

    def __init__(self, first: AccessList, second: AccessList) -> None:
        self._lists = (first, second)

    def allows(self, host: str) -> bool:
        """Whether both allow."""
        return all(rules.allows(host) for rules in self._lists)


class UpgradeAdmission(Admission):
    """Bounds the connections in upgrade, and applies rules and limits for one source to who a PROXY header names."""

    __slots__ = ("_is_proxied", "_judges_source", "_max_in_upgrade", "_source_max")

    def configure(self, options: ListenerOptions) -> None:
        """Take over the limits of these options."""
        super().configure(options)
        self._max_in_upgrade = options.handshake_room()
        self.has_load_checks = True
        self._is_proxied = options.proxy_policy() is not None
        self._judges_source = False
        if self._is_proxied:
            self._judges_source = options.access_rules_on != "peer"
            trusted = options.trusted_list()
            if options.access_rules_on == "source":
                self.peer_access = trusted
            else:
                self.peer_access = BothOf(trusted, self.access)
            # These wait for the source: see `admit_source`.
            self._source_max, self.max_per_source = self.max_per_source, None
            self.has_source_limits = False

    def admit_source(self, connection: Upgraded) -> None:
        """Judge who the PROXY header names, or the socket's peer where it names nobody.

        Raises:
            UpgradeRefused: The client is not to be served.
        """
        if not self._is_proxied:
            return
        peer = connection.peername
        host = peer[0] if isinstance(peer, tuple) else "unix:"
        if self._judges_source and not self.access.allows(host):
            raise UpgradeRefused(SOURCE_FORBIDDEN, super().why_forbidden(host))
        source = source_key(host)
        if self._source_max is not None and self.open_by_source.get(source, 0) >= self._source_max:
            raise UpgradeRefused(SOURCE_MAX_LIMIT, f"max_connections_per_source is {self._source_max}")
        if self.source_limiter is not None and not self.source_limiter.try_acquire(source):
            raise UpgradeRefused(SOURCE_RATE_LIMITED, "max_conn_rate_per_source has no token left")
        if self._source_max is not None:
            self.open_by_source[source] = self.open_by_source.get(source, 0) + 1
            connection.counted_source = host

    def release(self, connection: Carried) -> None:
        """Give back the place of an admitted connection that ended."""
        if not self._is_proxied:
            super().release(connection)
            return
        self.open_count -= 1
        if isinstance(connection, Upgraded) and connection.counted_source is not None:
            self.release_source(connection.counted_source)

    def why_forbidden(self, host: str) -> str:
        return (
            "it is no trusted upstream, or the access rules deny it"
            if self._is_proxied
            else super().why_forbidden(host)
        )

    def _overload(self, peer: PeerName | None) -> str | None:
        if self._max_in_upgrade is not None and len(self.upgrading) >= self._max_in_upgrade:
            return f"max_handshaking is {self._max_in_upgrade}"
        return super()._overload(peer)
