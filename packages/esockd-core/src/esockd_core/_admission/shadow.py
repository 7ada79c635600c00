"""The shadow of an admission: it judges every client by changed rules and limits, and refuses nobody.

While it is on, it stands in the place of the live admission at the listener's site, so that a listener without one asks
nothing more for each connection. It asks the live admission first and does what that says. Then it judges the same
client itself, with tokens and places of its own: a client that it refuses takes no place in the shadow, whatever
happens to its real connection.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from esockd_cidr import AccessList
from esockd_core._admission.answers import Answers
from esockd_core._admission.denial import NO_TOKEN, OF_SOURCES, Denial
from esockd_core._admission.overheard import OverheardWaiting, Rest
from esockd_core._admission.rules import RulesInFront
from esockd_core._connection.entrance import EntranceRefused
from esockd_core._connection.names import host_of
from esockd_core._stats.counters import Refused
from esockd_core._stats.top_sources import TopSources

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from esockd_core._admission.admission import Admission
    from esockd_core._admission.rules import Rules
    from esockd_core._connection.served import ServedConnection
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import ListenerOptions, PeerName
    from esockd_core._options.udp import PacketLimits

REMEMBERED: Final = 1024  # hosts that the rules in front have judged; these rules never change
EXAMPLES: Final = 5  # of each stage
EXAMPLE_EVERY_S: Final = 0.1  # once there are so many: under a flood, finding the deciding rule costs too much


class Example(NamedTuple):
    """A client that the shadow refused and the listener served.

    Attributes:
        client: Its address.
        stage: The stage or reason under which the listener would have counted it.
        reason: The deciding rule or limit, in words.
        at: Seconds since the epoch.
    """

    client: PeerName
    stage: str
    reason: str
    at: float


class Shadow:
    """Judges clients beside a live admission.

    Args:
        site: The parts of the listener.
        live: The listener's admission.
        access: The changed access rules.
        options: The changed options.
        on_failure: Called with the error if the shadow itself fails.

    Attributes:
        refused: Clients that it refused, by stage or reason.
        newly_refused: Those of them that the listener let in.
        newly_admitted: Clients that it let in and the listener refused, by the listener's stage or reason.
        waiting: Clients that it would have left in the kernel's queue.
        sources: The sources of those newly refused.
    """

    def __init__(
        self,
        site: Site,
        live: Admission,
        access: Rules,
        options: ListenerOptions,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._site = site
        self._live = live
        self._ask_live = live.admits
        self._on_failure = on_failure
        self._began_at = time.time()
        self._absent: dict[ServedConnection, str] = {}  # refused here, and open nevertheless
        self._sources: dict[ServedConnection, Hashable] = {}  # that hold one of the places of their source
        self._waiting = site.waiting
        self._overheard = OverheardWaiting(site.waiting)
        self._answers = Answers()
        self._in_front = _denials_before(access, live.access)
        self._denials: AccessList | None = None  # those, if the live verdict stands for the rules behind them
        self._spared: dict[str, bool] = {}
        self._is_on = False
        self._seen = 0  # without those that the live admission has let in since `start`
        self._accepted_before = 0
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.newly_refused: defaultdict[str, int] = defaultdict(int)
        self.newly_admitted: defaultdict[str, int] = defaultdict(int)
        self.waiting = 0
        self.sources = TopSources()
        self._examples: defaultdict[str, deque[Example]] = defaultdict(lambda: deque(maxlen=EXAMPLES))
        rest = Rest(site.waiting, self._overheard.left_out)
        self._changed = live.imagine(access, rest)
        self.follow(options)

    def start(self) -> None:
        """Begin to judge."""
        self._is_on, self._accepted_before = True, self._live.counters.accepted
        self._site.judge, self._site.registry.release = self, self.release
        self._site.waiting = self._overheard

    def note_lag(self, lag_s: float) -> None:
        """Note how late the event loop runs."""
        self._changed.loop_lag_s = lag_s

    def stop(self) -> None:
        """Judge no more."""
        self._seen, self._is_on = self.seen, False
        self._site.judge, self._site.registry.release = self._live, self._live.release
        self._site.waiting = self._waiting
        self._absent.clear()
        self._sources.clear()
        self._changed.release_all()

    def follow(self, options: ListenerOptions) -> None:
        """Go on with other options, which have the changes in them."""
        live, changed = self._live, self._changed
        changed.configure(options)
        self._denials = self._in_front if live.trusted is changed.trusted is None else None
        self._spared.clear()
        if options.limiter is not None or options.shared is not None:
            changed.limiter = self._answers
        if options.load_hook is not None:
            changed.load_hook = self._answers.load_hook
        if changed.max_per_source is not None:
            for connection in self._site.registry:
                if connection not in self._absent and connection not in self._waiting.headers:
                    with changed.lock():
                        self._take_source(connection, host_of(connection.peername))

    @property
    def seen(self) -> int:
        """Clients judged. Whoever is let in is counted by the live admission already."""
        return self._seen + (self._live.counters.accepted - self._accepted_before if self._is_on else 0)

    @property
    def examples(self) -> tuple[Example, ...]:
        """Clients that it refused and the listener served, at most five of each stage, oldest first."""
        return tuple(sorted((each for some in self._examples.values() for each in some), key=lambda each: each.at))

    # As the judge of the site. What is on every connection's way is written out here, in one piece.

    def admits(self, connection: ServedConnection, peer: PeerName) -> bool:
        """Judge a connection's peer; what the live admission says counts."""
        if not self._ask_live(connection, peer):
            self._watch_refused(connection, peer)
            return False
        try:
            host = peer[0] if type(peer) is tuple else "unix:"
            is_allowed = self._spared.get(host)
            if is_allowed is None:
                is_allowed = self._allows(host)
            verdict = self._changed.judge(peer, host, is_allowed)
            if verdict is not None:
                if isinstance(verdict, Denial):
                    self._deny(connection, host, verdict, is_admitted=True)
                else:
                    self._sources[connection] = verdict
        except Exception as error:  # noqa: BLE001 - no client is to be hurt by what only watches
            self._on_failure(error)
        return True

    @property
    def packet_limits(self) -> PacketLimits | None:
        """The limits of datagrams in force."""
        return self._live.packet_limits

    def moved(self, connection: ServedConnection) -> None:
        """Count an open connection for the source of its new address."""
        self._live.moved(connection)
        if connection in self._sources:
            with self._changed.lock():
                self._changed.release_source(self._sources.pop(connection))
                self._take_source(connection, host_of(connection.peername))

    def permits(self, peer: PeerName) -> bool:
        """Whether the rules in force let a datagram peer in that has not arrived yet."""
        return self._live.permits(peer)

    def permits_source(self, source: PeerName) -> bool:
        """The same for the client that a PROXY header names."""
        return self._live.permits_source(source)

    def admit_source(self, connection: ServedConnection) -> None:
        """Judge the client that a PROXY header names; what the live admission says counts.

        Raises:
            EntranceRefused: If the live admission refuses it.
        """
        try:
            self._live.admit_source(connection)
        except EntranceRefused as refused:
            self._watch_source(connection, refused.reason)
            raise
        self._watch_source(connection, None)

    def release(self, connection: ServedConnection) -> None:
        """Give back the place of an admitted connection that ended."""
        self._live.release(connection)
        try:
            if self._absent and self._absent.pop(connection, None) is not None:
                self._overheard.left_out.discard(connection)
            else:
                self._changed.give_back(self._sources.pop(connection, None) if self._sources else None)
        except Exception as error:  # noqa: BLE001 - as above
            self._on_failure(error)

    # Its own judgement

    def _allows(self, host: str) -> bool:
        """Whether the changed rules let a host in that the live rules let in."""
        if self._denials is None:
            return self._changed.allows_peer(host)
        if len(self._spared) >= REMEMBERED:
            self._spared.clear()
        # Remembered, because reading an address takes as long as all the rest. These rules do not change.
        self._spared[host] = is_allowed = self._denials.allows(host)
        return is_allowed

    def _watch_refused(self, connection: ServedConnection, peer: PeerName) -> None:
        """Judge a client that the live admission has refused."""
        live, answers = self._live, self._answers
        if live.is_inet and not peer:
            return  # nobody is there any more
        refusal = live.counters.refusals[-1]
        if refusal.stage is Refused.OTHER:
            return  # the program's own code failed
        answers.last = refusal
        try:
            self._seen += 1
            host = host_of(peer)
            is_allowed = self._spared.get(host)
            if self._denials is not None and refusal.stage is Refused.FORBIDDEN:
                is_allowed = False  # a rule in front of those in force can only deny
            elif is_allowed is None:
                is_allowed = self._allows(host)
            verdict = self._changed.judge(peer, host, is_allowed)
            if isinstance(verdict, Denial):
                self._deny(connection, host, verdict, is_admitted=False)
            else:  # it leaves at once: who knows how long it would have stayed
                self._changed.give_back(verdict)
                self.newly_admitted[refusal.stage] += 1
        except Exception as error:  # noqa: BLE001 - as above
            self._on_failure(error)
        finally:
            answers.last = None

    def _watch_source(self, connection: ServedConnection, live_reason: str | None) -> None:
        try:
            self._see_source(connection, live_reason)
        except Exception as error:  # noqa: BLE001 - as above
            self._on_failure(error)

    def _see_source(self, connection: ServedConnection, live_reason: str | None) -> None:
        changed = self._changed
        if connection.opened_at < self._began_at:
            self._seen += 1
        if (stage := self._absent.get(connection)) is not None:
            if live_reason is not None and stage:  # it was not to be served anyway
                self.newly_refused[stage] -= 1
            return
        host = host_of(connection.peername)
        with changed.lock():
            denial = changed.judge_source(host)
            if denial is None and changed.max_per_source is not None:
                self._take_source(connection, host)
        if denial is not None:
            changed.give_back(self._sources.pop(connection, None))
            stage = OF_SOURCES[denial[0]]
            self.refused[stage] += 1
            self._leave_out(connection, stage)
            if live_reason is None:
                self._note(connection.peername, host, stage, denial[1] or changed.why(host))
            return
        if live_reason is not None:
            self.newly_admitted[live_reason] += 1

    def _deny(self, connection: ServedConnection, host: str, denial: Denial, *, is_admitted: bool) -> None:
        stage, reason = denial
        if reason and self._would_wait(denial):
            self.waiting += 1
            if is_admitted:
                self._leave_out(connection, "")
            return
        self.refused[stage] += 1
        if is_admitted:
            self._leave_out(connection, stage)
            self._note(connection.socket_peername, host, stage, reason)

    def _would_wait(self, denial: Denial) -> bool:
        changed, (stage, reason) = self._changed, denial
        if stage is Refused.MAX_LIMIT:
            return changed.waits_for_room and not changed.has_room()
        return stage is Refused.RATE_LIMITED and changed.waits_for_token and reason == NO_TOKEN

    def _leave_out(self, connection: ServedConnection, stage: str) -> None:
        self._absent[connection] = stage
        site = self._site
        # Peers wait for their handshake; no header of a datagram is waited for.
        if site.dtls is not None or (site.entrance is not None and not site.ports):
            self._overheard.left_out.add(connection)

    def _note(self, client: PeerName, host: str, stage: str, reason: str) -> None:
        """Note a client that was let in, and that the changed listener would have refused."""
        self.newly_refused[stage] += 1
        self.sources.count(host)
        now, examples = time.time(), self._examples[stage]
        if len(examples) < EXAMPLES or now - examples[-1].at >= EXAMPLE_EVERY_S:
            examples.append(Example(client, stage, reason or self._changed.why_forbidden(host), now))

    def _take_source(self, connection: ServedConnection, host: str) -> None:
        """Count a connection for its source; the caller has `held` the limits."""
        if connection not in self._sources:
            self._sources[connection] = self._changed.take_source(host)


def _denials_before(access: Rules, live: Rules) -> AccessList | None:
    """The rules that the changed ones have in front of the live ones, if they only deny; otherwise None."""
    if access is live:
        return AccessList()
    return access.denials_before(live) if isinstance(access, RulesInFront) else None
