"""The verdict on an accepted socket: cheapest check first, one counter for each refusal."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from esockd_core._stats import Counters, Refusal, Refused
from esockd_core._upgrade import InUpgrade
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Hashable

    from esockd_cidr import AccessList
    from esockd_core._carried import Carried
    from esockd_core._options import ListenerOptions, PeerName
    from esockd_core._upgrade import Upgraded


logger = logging.getLogger("esockd_core")


class Allows(Protocol):
    """What judges the peer of a socket."""

    def allows(self, host: str, /) -> bool:
        """Whether it may come in."""
        ...


class Admission:
    """Judges peers one after the other, in the order of the path of a connection, and counts every verdict.

    It holds the room that connections take: each admission takes one place, `release` gives it back.
    """

    __slots__ = (
        "access",
        "counters",
        "has_load_checks",
        "has_source_limits",
        "is_inet",
        "limiter",
        "load_hook",
        "loop_lag_s",
        "max_connections",
        "max_loop_lag_s",
        "max_per_source",
        "open_by_source",
        "open_count",
        "peer_access",
        "source_limiter",
        "upgrading",
    )

    def __init__(self, options: ListenerOptions, access: AccessList, counters: Counters, *, is_inet: bool) -> None:
        self.counters = counters
        self.is_inet = is_inet
        self.open_count = 0
        self.open_by_source: dict[Hashable, int] = {}
        self.loop_lag_s = 0.0
        self.access = access
        self.peer_access: Allows = access
        self.upgrading = InUpgrade()
        self.configure(options)

    def configure(self, options: ListenerOptions) -> None:
        """Take over the limits of these options; what is open stays open, whatever the new limits are."""
        self.max_connections = options.max_connections
        self.max_per_source = options.max_connections_per_source
        self.limiter = options.connection_limiter()
        self.source_limiter = options.source_limiter()
        self.max_loop_lag_s = options.max_loop_lag
        self.load_hook = options.load_hook
        self.has_source_limits = self.max_per_source is not None or self.source_limiter is not None
        self.has_load_checks = self.max_loop_lag_s is not None or self.load_hook is not None

    def admits(self, peer: PeerName | None) -> bool:
        """Judge a socket's peer, take its place and count it, or count its refusal."""
        if self.is_inet and not peer:
            return self._refuse(None, Refused.EARLY, "the peer was gone before it was accepted")
        host = _host(peer)
        try:
            if not self._has_leave(peer, host):
                return False
        except Exception as error:  # of the program's own limiter or hook
            logger.exception("admission of %s failed", peer)
            return self._refuse(peer, Refused.OTHER, f"admission failed: {error!r}")
        self.counters.accepted += 1
        self.open_count += 1
        if self.max_per_source is not None:
            source = source_key(host)
            self.open_by_source[source] = self.open_by_source.get(source, 0) + 1
        return True

    def _has_leave(self, peer: PeerName | None, host: str) -> bool:
        if not self.peer_access.allows(host):
            return self._refuse(peer, Refused.FORBIDDEN, self.why_forbidden(host))
        if self.max_connections is not None and self.open_count >= self.max_connections:
            return self._refuse(peer, Refused.MAX_LIMIT, f"max_connections is {self.max_connections}")
        if self.has_source_limits and (source_limit := self._source_limit(host)):
            return self._refuse(peer, *source_limit)
        if self.limiter is not None and not self.limiter.try_acquire():
            return self._refuse(peer, Refused.RATE_LIMITED, "max_conn_rate has no token left")
        if self.has_load_checks and (overload := self._overload(peer)):
            return self._refuse(peer, Refused.OVERLOADED, overload)
        return True

    def refuse_other(self, reason: str) -> None:
        """Count an accepted socket that could not even be judged."""
        self._refuse(None, Refused.OTHER, reason)

    def wait_time_s(self) -> float:
        """Seconds until the common bucket has a token; 0 where a program's own limiter fails to say."""
        try:
            return 0.0 if self.limiter is None else float(self.limiter.wait_time())
        except Exception:
            logger.exception("the limiter failed to say how long to wait; taking the next client")
            return 0.0

    def has_room(self) -> bool:
        """Whether one more connection would find a place."""
        return self.max_connections is None or self.open_count < self.max_connections

    def admit_source(self, connection: Upgraded) -> None:
        """Judge who a PROXY header names: here the peer was judged already."""

    def release(self, connection: Carried) -> None:
        """Give back the place of an admitted connection that ended."""
        self.open_count -= 1
        if self.open_by_source:
            self.release_source(_host(connection.socket_peername))

    def release_source(self, host: str) -> None:
        """Give back the place among those of one source."""
        source = source_key(host)
        left = self.open_by_source.get(source, 0) - 1
        if left > 0:
            self.open_by_source[source] = left
        else:
            self.open_by_source.pop(source, None)

    def why_forbidden(self, host: str) -> str:
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

    def _overload(self, peer: PeerName | None) -> str | None:
        if self.max_loop_lag_s is not None and self.loop_lag_s > self.max_loop_lag_s:
            return f"the event loop lags {self.loop_lag_s:.3f} s, more than max_loop_lag {self.max_loop_lag_s} s"
        if self.load_hook is not None and not self.load_hook(peer or ""):
            return "load_hook said no"
        return None

    def _refuse(self, peer: PeerName | None, stage: Refused, reason: str) -> bool:
        self.counters.count_refused(stage)
        self.counters.refusals.append(Refusal(peer, stage, reason, time.time()))
        return False


def _host(peer: PeerName | None) -> str:
    """What rules and sources go by: the address, or one name for all Unix clients."""
    return peer[0] if isinstance(peer, tuple) else "unix:"
