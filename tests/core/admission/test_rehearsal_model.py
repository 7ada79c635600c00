"""A rehearsal against what it stands for: a listener on which the same changes were really made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.conftest import open_by_source

from esockd_cidr import AccessList
from esockd_core import ListenerOptions, Refused, merge_options, parse_address
from esockd_core._admission.admission import Admission
from esockd_core._admission.rules import RulesInFront
from esockd_core._admission.shadow import EXAMPLES, Shadow
from esockd_core._admission.sources import Sources
from esockd_core._connection.entrance import EntranceRefused, plan_entrance
from esockd_core._connection.site import Site
from esockd_core._stats.counters import Counters
from esockd_core._stats.log import ListenerLog
from esockd_core.handlers import echo
from esockd_ratelimit import TokenBucket
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTS = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
GENEROUS = {"max_conn_rate": "1000/s", "max_conn_rate_per_source": "1000/s", "max_connections": 100_000}


@dataclass(eq=False)
class Client:
    """As much of a connection as admission sees."""

    socket_peername: tuple[str, int]
    peername: tuple[str, int]
    counted_source: object = None
    id: int = 0
    opened_at: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def add_totals(self, counters: Counters) -> None:
        """Nothing went through it."""


@dataclass
class Place:
    """A listener without sockets, to which clients come and from which they leave."""

    clock: FakeClock
    options: ListenerOptions
    clients: dict[int, Client] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counters, log = Counters(), ListenerLog("model")
        self.site: Any = Site("model", echo, self.options, self.counters, log)
        self.access = self.options.access_list()
        self.site.entrance = plan_entrance(parse_address("127.0.0.1:0"), self.options)
        self.admission = Admission(self.options, self.access, self.site.waiting, self.counters, log)
        self.admission.limiter = TokenBucket("1000/s", clock=self.clock)
        self.admission.sources = Sources(self.clock)
        self.admission.configure(self.options)
        self.site.judge, self.site.registry.release = self.admission, self.admission.release

    def arrive(self, number: int, peer: str, source: str) -> None:
        client = Client((peer, number), (peer, number))
        if not self.site.judge.admits(client, client.socket_peername):
            return
        self.clients[number] = client
        if self.site.entrance is None:
            self.site.registry.add(client)
            return
        self.site.registry.enter(client)
        client.user_source = source  # type: ignore[attr-defined]
        self.site.waiting.headers[client] = 0.0

    def send_header(self, number: int) -> None:
        client: Any = self.clients.get(number)
        if client is None or client not in self.site.waiting.headers:
            return
        self.site.waiting.headers.pop(client)
        client.peername = (client.user_source, number)
        try:
            self.site.judge.admit_source(client)
        except EntranceRefused as refused:
            self.leave(number, refused.reason)
        else:
            self.site.waiting.forget(client)
            self.site.registry.passed(client)

    def leave(self, number: int, reason: str = "normal") -> None:
        client = self.clients.pop(number, None)
        if client is not None:
            self.site.waiting.forget(client)
            self.site.registry.ended(client, reason)

    def refused(self) -> dict[str, int]:
        """All that it refused, by counter or reason."""
        counts = {str(stage): getattr(self.counters, stage) for stage in Refused}
        ended = {reason: n for reason, n in self.counters.shutdown_counts.items() if reason.startswith("source_")}
        return {name: count for name, count in (counts | ended).items() if count}


Step = tuple[str, int, str, str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "arrive", "header", "header", "leave", "wait"]),
        st.integers(0, 20),
        st.sampled_from(HOSTS),
        st.sampled_from(HOSTS),
    ),
    min_size=30,
    max_size=60,
)
LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "max_connections": st.integers(1, 8),
    "max_connections_per_source": st.integers(1, 4),
    "max_conn_rate": st.sampled_from(["1/s burst 3", "2/s burst 10", "5/s"]),
    "max_conn_rate_per_source": st.sampled_from(["1/s", "1/s burst 3"]),
    "max_handshaking": st.integers(1, 6),
}
CHANGES = st.fixed_dictionaries({}, optional=LIMITS)
JUDGED = [
    {},
    {"trusted": ["192.0.2.0/24"]},
    {"trusted": ["198.51.100.1"], "access_rules_on": "both"},
    {"access_rules_on": "peer"},
]
RULES = st.lists(
    st.sampled_from(["deny 192.0.2.0/24", "allow 192.0.2.2", "deny 2001:db8::/32", "deny 198.51.100.1"]),
    unique=True,
    max_size=3,
)


class Both:
    """A rehearsal from some moment on, and beside it a listener on which the changes are really made at that moment."""

    def __init__(self, *, proxied: bool) -> None:
        proxy = {"proxy_protocol": True} if proxied else {}
        self.options = ListenerOptions(**GENEROUS, **proxy)  # type: ignore[arg-type]
        self.watched, self.changed = Place(FakeClock(), self.options), Place(FakeClock(), self.options)
        self.arrived = 0

    def play(self, steps: list[Step], pause: float) -> None:
        """What happens to both alike: to the changed one no more of whom it has refused."""
        for kind, which, peer, source in steps:
            known = sorted(self.watched.clients)
            chosen = known[which % len(known)] if known else -1
            self.arrived += kind == "arrive"
            for place in (self.watched, self.changed):
                if kind == "arrive":
                    place.arrive(self.arrived, peer, source)
                elif kind == "header":
                    place.send_header(chosen)
                elif kind == "leave":
                    place.leave(chosen)
                else:
                    place.clock.advance(pause)

    def rehearse(self, rules: list[str], changes: Mapping[str, Any]) -> Shadow:
        def fail(error: Exception) -> None:
            raise error

        new, place = merge_options(self.options, changes), self.watched
        shadow = Shadow(place.site, place.admission, RulesInFront(AccessList(rules), place.access), new, fail)
        shadow.start()
        self.changed.admission.configure(new, self.changed.site.registry)
        for rule in reversed(rules):
            self.changed.access.prepend(rule)
        return shadow


@pytest.mark.timeout(900)  # the deep profile takes minutes
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
@given(
    before=STEPS.map(lambda steps: steps[:20]),
    steps=STEPS,
    rules=RULES,
    changes=CHANGES,
    pause=st.sampled_from([0.1, 0.7, 5.0]),
    judged=st.sampled_from(JUDGED),
)
def test_a_rehearsal_counts_what_the_changed_listener_refuses(
    *,
    proxied: bool,
    before: list[Step],
    steps: list[Step],
    rules: list[str],
    changes: dict[str, Any],
    pause: float,
    judged: dict[str, Any],
) -> None:
    if proxied and judged:
        changes["proxy_protocol"] = judged
    both = Both(proxied=proxied)
    both.play(before, pause)
    shadow = both.rehearse(rules, changes)
    both.play(steps, pause)
    watched, changed = both.watched, both.changed
    assert dict(shadow.refused) == dict(shadow.newly_refused) == changed.refused()
    assert watched.refused() == {}
    assert shadow._changed.open_count == changed.admission.open_count
    if changed.admission.max_per_source is not None:
        assert open_by_source(shadow._changed) == open_by_source(changed.admission)
    assert len(shadow.examples) <= EXAMPLES * len(changed.refused())
    for number in list(watched.clients):
        watched.leave(number)
    assert shadow._changed.open_count == watched.admission.open_count == 0
    assert open_by_source(shadow._changed) == {}
    assert (shadow._absent, shadow._sources, shadow._overheard.left_out) == ({}, {}, set())


def test_the_rules_in_front_are_asked_once_about_a_host_that_the_listener_refuses_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, asked = Both(proxied=False), list[str]()
    both.watched.admission.configure(replace(both.options, max_connections=1))
    shadow, allows = both.rehearse(["deny 192.0.2.0/24"], {}), AccessList.allows

    def asking(rules: AccessList, host: str) -> bool:
        if rules is shadow._denials:
            asked.append(host)
        return allows(rules, host)

    monkeypatch.setattr(AccessList, "allows", asking)
    for number, host in enumerate(["198.51.100.1", "192.0.2.1", "192.0.2.1", "198.51.100.1", "192.0.2.1"]):
        both.watched.arrive(number, host, host)
    assert asked == ["198.51.100.1", "192.0.2.1"]
    assert (shadow.refused, shadow.newly_admitted) == ({"closed_forbidden": 3}, {"closed_max_limit": 1})
