"""The verdict on an accepted socket: cheapest stage first, one counter for each refusal.

Behind a proxy it has two parts: the socket's peer is judged at accept, and the client that its PROXY header names is
judged once the header has come.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any

from esockd_core._admission.denial import FORBIDDEN, HOOK_SAID_NO, NO_TOKEN, OF_SOURCES, Denial
from esockd_core._admission.rules import BothOf
from esockd_core._admission.sources import Sources
from esockd_core._connection.entrance import EntranceRefused
from esockd_core._connection.names import host_of
from esockd_core._stats.counters import Counters, Refusal, Refused
from esockd_core._stats.log import logger
from esockd_ratelimit import TokenBucket, source_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from esockd_cidr import AccessList
    from esockd_core._admission.overheard import Entering
    from esockd_core._admission.rules import Allows, Rules
    from esockd_core._admission.sources import Source
    from esockd_core._connection.served import ServedConnection
    from esockd_core._options.listener import ListenerOptions, PeerName
    from esockd_core._stats.log import ListenerLog


class Admission:
    """Judges peers one after the other and counts every verdict.

    It also keeps the places of `max_connections`: each admission takes one, and `release` gives it back.

    Attributes:
        is_inet: Whether every peer that is still there has an address.
        access: The live access rules.
        trusted: The proxies whose PROXY headers count; None if no header is looked for.
        judges_peer: Whether the access rules judge the socket's peer.
        packet_limits: Say whether one more datagram may be taken; None for no limits.
        max_connections: How many connections may be open at once.
        room_option: The option that says so.
        judges_source: Whether they judge the client that a PROXY header names.
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
        "max_handshaking",
        "max_loop_lag_s",
        "max_per_source",
        "open_count",
        "options",
        "packet_limits",
        "room_option",
        "sources",
        "trusted",
        "waiting",
    )

    def __init__(
        self, options: ListenerOptions, access: Rules, waiting: Entering, counters: Counters, log: ListenerLog
    ) -> None:
        self.counters = counters
        self.log = log
        self.is_inet = True
        self.open_count = 0
        self.sources = Sources()
        self.loop_lag_s = 0.0
        self.access = access
        self.waiting = waiting
        self.limiter = options.connection_limiter()
        self.packet_limits = options.udp.packet_limits()
        self.options = options
        self.configure(options)

    def configure(self, options: ListenerOptions, connections: Iterable[ServedConnection] = ()) -> None:
        """Take over the limits of these options. Open connections stay open, whatever the new limits are.

        Args:
            options: Valid options. A bucket keeps its tokens, up to its new burst.
            connections: The open connections, which count for the limits of their sources.
        """
        old, self.options = self.options, options
        self.room_option, self.max_connections = options.connection_room()
        self.max_per_source = options.max_connections_per_source
        self._adjust_buckets(old)
        self.max_loop_lag_s = options.max_loop_lag
        self.load_hook = options.load_hook
        has_entrance = (options.tls, options.dtls, options.proxy) != (None, None, None)
        self.max_handshaking = options.handshake_room() if has_entrance else None
        self._has_load_checks = (self.max_loop_lag_s, self.load_hook, self.max_handshaking) != (None, None, None)
        self._peer_access: Allows = self.access
        self.trusted: AccessList | None = None
        self.judges_peer = self.judges_source = True
        if options.proxy is not None:
            self.trusted = options.proxy.trusted_list()
            self.judges_peer = options.proxy.access_rules_on != "source"
            self.judges_source = options.proxy.access_rules_on != "peer"
            self._peer_access = BothOf(self.trusted, self.access) if self.judges_peer else self.trusted
        # With a PROXY header these wait for the source: see `admit_source`.
        has_limits = self.max_per_source is not None or options.max_conn_rate_per_source is not None
        self._has_source_limits = has_limits and self.trusted is None
        if self.max_per_source is not None:
            for connection in connections:
                if connection.counted_source is None and connection not in self.waiting.headers:
                    connection.counted_source = self.take_source(host_of(connection.peername))

    def imagine(self, access: Rules, waiting: Entering) -> Admission:
        """An admission that begins where this one is now, with tokens and places of its own.

        Args:
            access: Its access rules.
            waiting: The connections in their entrance, as it counts them.
        """
        imagined = Admission(self.options, access, waiting, Counters(), self.log)
        if self.options.limiter is None and self.options.shared is None:
            imagined.limiter = copy(self.limiter)
        imagined.sources = self.sources.copy()
        imagined.open_count, imagined.loop_lag_s = self.open_count, self.loop_lag_s
        return imagined

    def _adjust_buckets(self, old: ListenerOptions) -> None:
        options = self.options
        before, after = old.udp, options.udp
        if (before.max_packet_rate, before.max_packet_rate_per_peer) != (
            after.max_packet_rate,
            after.max_packet_rate_per_peer,
        ):
            self.packet_limits = after.packet_limits()
        # A shared bucket is put in force by `SharedLimit`.
        is_other = _deciding(old) != _deciding(options)
        if options.shared is None and is_other:
            fresh = options.connection_limiter()
            is_ours = old.limiter is None and options.limiter is None
            if is_ours and isinstance(self.limiter, TokenBucket) and isinstance(fresh, TokenBucket):
                self.limiter.reconfigure(fresh.rate)
            else:
                self.limiter = fresh
        self.sources.configure(options.max_connections_per_source, options.source_rate())

    def admits(self, connection: ServedConnection, peer: PeerName) -> bool:
        """Judge a connection's peer. Take a place and count it, or count the refusal."""
        if self.is_inet and not peer:
            return self._refuse(None, Refused.EARLY, "the peer was gone before it was accepted")
        host = peer[0] if type(peer) is tuple else host_of(peer)  # without a call, for each connection
        if self.trusted is None:
            self.counters.sources.count(host)
        try:
            verdict = self.judge(peer, host, self._peer_access.allows(host))
        except Exception as error:  # noqa: BLE001 - of the program's own limiter or hook
            self.log.say(logging.ERROR, "admission of %s failed: %r", peer, error, peer=peer, error=error)
            return self._refuse(peer, Refused.OTHER, f"admission failed: {error!r}")
        if verdict is not None:
            if isinstance(verdict, Denial):
                return self._refuse(peer, verdict.stage, verdict.reason or self.why_forbidden(host))
            connection.counted_source = verdict
        self.counters.accepted += 1
        return True

    def moved(self, connection: ServedConnection) -> None:
        """Count an open connection for the source of its new address; its place stays its own."""
        if connection.counted_source is not None:
            self.release_source(connection.counted_source)
            connection.counted_source = self.take_source(host_of(connection.peername))

    def permits(self, peer: PeerName) -> bool:
        """Whether the access rules let a peer in. Count the refusal if not; it takes no place and no token."""
        host = host_of(peer)
        return self._peer_access.allows(host) or self._refuse(peer, Refused.FORBIDDEN, self.why_forbidden(host))

    def permits_source(self, source: PeerName) -> bool:
        """The same for the client that a PROXY header names."""
        host = host_of(source)
        is_allowed = not self.judges_source or self.access.allows(host)
        return is_allowed or self._refuse(source, Refused.FORBIDDEN, self.why(host))

    def allows_peer(self, host: str) -> bool:
        """Whether the rules let a socket's peer in."""
        return self._peer_access.allows(host)

    def judge(self, peer: PeerName | None, host: str, is_allowed: bool) -> Denial | Any | None:
        """Judge a socket's peer, and take its tokens and its place. Nothing is counted.

        Args:
            peer: The peer.
            host: Its host.
            is_allowed: Whether `allows_peer`.

        Returns:
            Why it is refused. If it is not, the source that has one more connection, if sources are limited.
        """
        if not is_allowed:
            return FORBIDDEN
        if self.max_connections is not None and self.open_count >= self.max_connections:
            return Denial(Refused.MAX_LIMIT, f"{self.room_option} is {self.max_connections}")
        source: Source | None = None
        # A source over its own limit must not spend what all sources share: this stands before the common bucket.
        if self._has_source_limits and (source := self.sources.spend(host)) is None:
            return self.sources.denial(host)
        if self.limiter is not None and not self.limiter.try_acquire():
            return Denial(Refused.RATE_LIMITED, NO_TOKEN)
        if self._has_load_checks and (overload := self._overload(peer)):
            return Denial(Refused.OVERLOADED, overload)
        self.open_count += 1
        if source is not None:
            source.open += 1
        return source

    def admit_source(self, connection: ServedConnection) -> None:
        """Judge the client that a PROXY header names, or the socket's peer if the header names none.

        The options in force now count: headers may have been switched off while the connection waited for its own.

        Raises:
            EntranceRefused: If the client is not to be served.
        """
        host = host_of(connection.peername)
        self.counters.sources.count(host)
        if denial := self.judge_source(host):
            stage, reason = denial
            raise EntranceRefused(OF_SOURCES[stage], reason or self.why(host))
        if self.max_per_source is not None and connection.counted_source is None:
            connection.counted_source = self.take_source(host)

    def judge_source(self, host: str) -> Denial | None:
        """Judge the client that a PROXY header names, and take its token. No place is taken."""
        if self.judges_source and not self.access.allows(host):
            return FORBIDDEN
        return self._spend(host)

    def _spend(self, host: str) -> Denial | None:
        """Take a token of a host's source if it has a place left."""
        return None if self.sources.spend(host) is not None else self.sources.denial(host)

    def refuse_other(self, reason: str) -> None:
        """Count an accepted socket that could not be judged."""
        self._refuse(None, Refused.OTHER, reason)

    def wait_time_s(self) -> float:
        """Seconds until the common bucket has a token; 0 if the program's own limiter fails."""
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
        """Whether clients stay in the kernel's queue while there is no room."""
        return self.options.when_full == "backlog"

    @property
    def waits_for_token(self) -> bool:
        """Whether clients stay in the kernel's queue while the common bucket is empty."""
        return self.options.when_limited == "backlog"

    def has_room(self) -> bool:
        """Whether there is a place for one more connection."""
        return self.max_connections is None or self.open_count < self.max_connections

    def places_taken(self) -> int:
        """How many connections count for `max_connections`."""
        return self.open_count

    def source_places_taken(self, host: str) -> int:
        """How many connections count for `max_connections_per_source` of a host's source."""
        return self.sources.open_connections(source_key(host))

    def source_wait_time_s(self, host: str) -> float:
        """Seconds until a host's source has a token."""
        return self.sources.wait_time(source_key(host))

    def reserve(self) -> float:
        """Keep the place and the token that the next client would otherwise be left in the kernel's queue for.

        Returns:
            0 if the next client may be taken; otherwise the seconds after which to ask again, or earlier if something
            changes.
        """
        if self.waits_for_room and not self.has_room():
            return math.inf
        return self.wait_time_s() if self.waits_for_token else 0.0

    def unreserve(self) -> None:
        """Give back what `reserve` kept and the client did not take."""

    def lock(self) -> AbstractContextManager[object]:
        """Keep everybody else from taking places and tokens for the duration of a block."""
        return nullcontext()

    def give_back(self, source: Any | None) -> None:
        """Give back a place, and the one of its source if it took one."""
        self.open_count -= 1
        if source is not None:
            source.open -= 1
            if not source.open and not source.is_queued:
                self.sources.drop(source)

    def release_all(self) -> None:
        """Hold nothing any more."""
        self.sources.clear()  # which may be many

    def release(self, connection: ServedConnection) -> None:
        """Give back the place of an admitted connection that ended."""
        self.open_count -= 1
        if connection.counted_source is not None:
            source, connection.counted_source = connection.counted_source, None
            self.release_source(source)

    def take_source(self, host: str) -> Any:
        """Take one of the places of a host's source, whether or not one is left; return the source."""
        return self.sources.take(host)

    def release_source(self, source: Any) -> None:
        """Give back a place of a source."""
        self.sources.release(source)

    def why_forbidden(self, host: str) -> str:
        """Why the access rules or `trusted` refuse a socket's peer, in words."""
        if self.trusted is not None and not self.trusted.allows(host):
            return "it is not a trusted proxy"
        return self.why(host)

    def why(self, host: str) -> str:
        """The access rule that decides about this host, in words."""
        match = self.access.match(host)
        return "no access rule matches" if match is None else f"access rule {match.index}: {match.rule}"

    def overload(self) -> str | None:
        """Why the load allows no further connection, in words; None if it does. The program's own hook is not asked."""
        if self.max_handshaking is not None and len(self.waiting) >= self.max_handshaking:
            return f"max_handshaking is {self.max_handshaking}"
        if self.max_loop_lag_s is not None and self.loop_lag_s > self.max_loop_lag_s:
            return f"the event loop lags {self.loop_lag_s:.3f} s, more than max_loop_lag {self.max_loop_lag_s} s"
        return None

    def _overload(self, peer: PeerName | None) -> str | None:
        if overload := self.overload():
            return overload
        if self.load_hook is not None and not self.load_hook(peer or ""):
            return HOOK_SAID_NO
        return None

    def _refuse(self, peer: PeerName | None, stage: Refused, reason: str) -> bool:
        self.counters.count_refused(stage)
        if stage is not Refused.EARLY:  # port checks that reset: they would push out those that were refused
            self.counters.refusals.append(Refusal(peer, stage, reason, time.time()))
            if logger.isEnabledFor(logging.INFO):  # as the log asks too, in a call that a flood would pay for
                self.log.say(logging.INFO, "refused %s (%s): %s", peer, stage, reason, peer=peer, reason=stage)
        return False


def _deciding(options: ListenerOptions) -> tuple[object, ...]:
    """The options that decide which common bucket there is."""
    return options.max_conn_rate, options.limiter, options.shared
