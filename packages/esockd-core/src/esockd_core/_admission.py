"""The verdict on an accepted socket: cheapest check first, one counter for each refusal.

Behind a proxy it falls in two parts: the socket's peer is judged at accept, the client that its PROXY header names once
the header is there.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from esockd_core._stats import Counters, Refusal, Refused
from esockd_core._upgrade import SOURCE_FORBIDDEN, SOURCE_MAX_LIMIT, SOURCE_RATE_LIMITED, InUpgrade, UpgradeRefused
from esockd_ratelimit import TokenBucket, source_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from esockd_cidr import AccessList
    from esockd_core._carried import Carried
    from esockd_core._log import ListenerLog
    from esockd_core._options import ListenerOptions, PeerName
    from esockd_core._upgrade import Upgraded


class Allows(Protocol):
    """What judges the peer of a socket."""

    def allows(self, host: str, /) -> bool:
        """Whether it may come in."""
        ...


class BothOf:
    """Two access lists that both have to allow."""

    def __init__(self, first: AccessList, second: AccessList) -> None:
        self._lists = (first, second)

    def allows(self, host: str) -> bool:
        """Whether both allow."""
        return all(rules.allows(host) for rules in self._lists)


class Admission:
    """Judges peers one after the other, in the order of the path of a connection, and counts every verdict.

    It holds the room that connections take: each admission takes one place, `release` gives it back.

    Attributes:
        is_inet: Whether every peer that is still there has an address.
        access: The live access rules.
        trusted: The upstreams whose PROXY headers count; None where no header is looked for.
        judges_peer: Whether the access rules judge the socket's peer.
        judges_source: Whether they judge who a PROXY header names.
    """

    __slots__ = (
        "_has_load_checks",
        "_has_source_limits",
        "_peer_access",
        "access",
        "counters",
        "is_inet",
        "judges_peer",
        "judges_source",
        "limiter",
        "load_hook",
        "log",
        "loop_lag_s",
        "max_connections",
        "max_in_upgrade",
        "max_loop_lag_s",
        "max_per_source",
        "open_by_source",
        "open_count",
        "options",
        "source_limiter",
        "trusted",
        "upgrading",
    )

    def __init__(self, options: ListenerOptions, access: AccessList, counters: Counters, log: ListenerLog) -> None:
        self.counters = counters
        self.log = log
        self.is_inet = True
        self.open_count = 0
        self.open_by_source: dict[Hashable, int] = {}
        self.loop_lag_s = 0.0
        self.access = access
        self.upgrading = InUpgrade(counters.handshakes)
        self.limiter = options.connection_limiter()
        self.source_limiter = options.source_limiter()
        self.options = options
        self.configure(options)

    def configure(self, options: ListenerOptions, connections: Iterable[Carried] = ()) -> None:
        """Take over the limits of these options; what is open stays open, whatever the new limits are.

        Args:
            options: Valid ones. A bucket keeps its tokens, as far as its new burst holds them.
            connections: The open ones, which count for the limits of their sources.
        """
        old, self.options = self.options, options
        self.max_connections = options.max_connections
        self.max_per_source = options.max_connections_per_source
        self._adjust_buckets(old)
        self.max_loop_lag_s = options.max_loop_lag
        self.load_hook = options.load_hook
        has_upgrades = options.tls is not None or options.proxy_policy() is not None
        self.max_in_upgrade = options.handshake_room() if has_upgrades else None
        self._has_load_checks = (self.max_loop_lag_s, self.load_hook, self.max_in_upgrade) != (None, None, None)
        self._peer_access: Allows = self.access
        self.trusted: AccessList | None = None
        self.judges_peer = self.judges_source = True
        if options.proxy_policy() is not None:
            self.trusted = options.trusted_list()
            self.judges_peer = options.access_rules_on != "source"
            self.judges_source = options.access_rules_on != "peer"
            self._peer_access = BothOf(self.trusted, self.access) if self.judges_peer else self.trusted
        # With a PROXY header these wait for the source: see `admit_source`.
        has_limits = self.max_per_source is not None or self.source_limiter is not None
        self._has_source_limits = has_limits and self.trusted is None
        if self.max_per_source is not None:
            for connection in connections:
                if connection.counted_source is None and not connection.awaits_source:
                    self._count_source(connection, source_key(host_of(connection.peername)))

    def _adjust_buckets(self, old: ListenerOptions) -> None:
        options = self.options
        if (old.max_conn_rate, old.limiter) != (options.max_conn_rate, options.limiter):
            fresh = options.connection_limiter()
            is_ours = old.limiter is None and options.limiter is None
            if is_ours and isinstance(self.limiter, TokenBucket) and isinstance(fresh, TokenBucket):
                self.limiter.reconfigure(fresh.rate)
            else:
                self.limiter = fresh
        if old.max_conn_rate_per_source != options.max_conn_rate_per_source:
            fresh_buckets = options.source_limiter()
            if self.source_limiter is not None and fresh_buckets is not None:
                self.source_limiter.reconfigure(fresh_buckets.rate)
            else:
                self.source_limiter = fresh_buckets

    def admits(self, connection: Carried) -> bool:
        """Judge a connection's peer, take its place and count it, or count its refusal."""
        peer = connection.socket_peername
        if self.is_inet and not peer:
            return self._refuse(None, Refused.EARLY, "the peer was gone before it was accepted")
        host = host_of(peer)
        if self.trusted is None:
            self.counters.sources.count(host)
        try:
            if not self._has_leave(peer, host):
                return False
        except Exception as error:  # noqa: BLE001 - of the program's own limiter or hook
            self.log.say(logging.ERROR, "admission of %s failed: %r", peer, error, peer=peer, error=error)
            return self._refuse(peer, Refused.OTHER, f"admission failed: {error!r}")
        self.counters.accepted += 1
        self.open_count += 1
        if self.max_per_source is not None and self.trusted is None:
            self._count_source(connection, source_key(host))
        return True

    def _has_leave(self, peer: PeerName | None, host: str) -> bool:
        if not self._peer_access.allows(host):
            return self._refuse(peer, Refused.FORBIDDEN, self.why_forbidden(host))
        if self.max_connections is not None and self.open_count >= self.max_connections:
            return self._refuse(peer, Refused.MAX_LIMIT, f"max_connections is {self.max_connections}")
        if self._has_source_limits and (source_limit := self._source_limit(host)):
            return self._refuse(peer, *source_limit)
        if self.limiter is not None and not self.limiter.try_acquire():
            return self._refuse(peer, Refused.RATE_LIMITED, "max_conn_rate has no token left")
        if self._has_load_checks and (overload := self._overload(peer)):
            return self._refuse(peer, Refused.OVERLOADED, overload)
        return True

    def admit_source(self, connection: Upgraded) -> None:
        """Judge who a PROXY header names, or the socket's peer where it names nobody.

        By what holds now: headers may have been switched off while this one was waited for.

        Raises:
            UpgradeRefused: The client is not to be served.
        """
        host = host_of(connection.peername)
        self.counters.sources.count(host)
        if self.judges_source and not self.access.allows(host):
            raise UpgradeRefused(SOURCE_FORBIDDEN, self.why(host))
        if source_limit := self._source_limit(host):
            stage, why = source_limit
            raise UpgradeRefused(SOURCE_MAX_LIMIT if stage is Refused.MAX_LIMIT else SOURCE_RATE_LIMITED, why)
        if self.max_per_source is not None and connection.counted_source is None:
            self._count_source(connection, source_key(host))

    def refuse_other(self, reason: str) -> None:
        """Count an accepted socket that could not even be judged."""
        self._refuse(None, Refused.OTHER, reason)

    def wait_time_s(self) -> float:
        """Seconds until the common bucket has a token; 0 where a program's own limiter fails to say."""
        try:
            return 0.0 if self.limiter is None else float(self.limiter.wait_time())
        except Exception as error:  # noqa: BLE001 - of the program
            self.log.say(
                logging.ERROR,
                "the limiter fails to say how long to wait; taking the next client: %r",
                error,
                error=error,
            )
            return 0.0

    @property
    def waits_for_room(self) -> bool:
        """Whether clients are left in the kernel's queue while there is no room."""
        return self.options.when_full == "backlog"

    @property
    def waits_for_token(self) -> bool:
        """Whether clients are left in the kernel's queue while the common bucket is empty."""
        return self.options.when_limited == "backlog"

    def has_room(self) -> bool:
        """Whether one more connection would find a place."""
        return self.max_connections is None or self.open_count < self.max_connections

    def release(self, connection: Carried) -> None:
        """Give back the place of an admitted connection that ended."""
        self.open_count -= 1
        if connection.counted_source is not None:
            source, connection.counted_source = connection.counted_source, None
            left = self.open_by_source[source] - 1
            if left:
                self.open_by_source[source] = left
            else:
                del self.open_by_source[source]

    def why_forbidden(self, host: str) -> str:
        """Why a socket's peer may not come in, in words."""
        if self.trusted is not None and not self.trusted.allows(host):
            return "it is no trusted upstream"
        return self.why(host)

    def why(self, host: str) -> str:
        """The access rule that decides about this host, in words."""
        match = self.access.match(host)
        return "no access rule matches" if match is None else f"access rule {match.index}: {match.rule}"

    def _source_limit(self, host: str) -> tuple[Refused, str] | None:
        # A source over its own limit must not spend what all sources share: this stands before the common bucket.
        source = source_key(host)
        if self.max_per_source is not None and self.open_by_source.get(source, 0) >= self.max_per_source:
            return Refused.MAX_LIMIT, f"max_connections_per_source is {self.max_per_source}"
        if self.source_limiter is not None and not self.source_limiter.try_acquire(source):
            return Refused.RATE_LIMITED, "max_conn_rate_per_source has no token left"
        return None

    def _count_source(self, connection: Carried, source: Hashable) -> None:
        self.open_by_source[source] = self.open_by_source.get(source, 0) + 1
        connection.counted_source = source

    def overload(self) -> str | None:
        """What speaks against one more connection beside the program's own hook; None for nothing."""
        if self.max_in_upgrade is not None and len(self.upgrading) >= self.max_in_upgrade:
            return f"max_handshaking is {self.max_in_upgrade}"
        if self.max_loop_lag_s is not None and self.loop_lag_s > self.max_loop_lag_s:
            return f"the event loop lags {self.loop_lag_s:.3f} s, more than max_loop_lag {self.max_loop_lag_s} s"
        return None

    def _overload(self, peer: PeerName | None) -> str | None:
        if overload := self.overload():
            return overload
        if self.load_hook is not None and not self.load_hook(peer or ""):
            return "load_hook said no"
        return None

    def _refuse(self, peer: PeerName | None, stage: Refused, reason: str) -> bool:
        self.counters.count_refused(stage)
        self.counters.refusals.append(Refusal(peer, stage, reason, time.time()))
        return False


def host_of(peer: PeerName | None) -> str:
    """What rules and sources go by: the address, or one name for all Unix clients."""
    return peer[0] if isinstance(peer, tuple) else "unix:"
