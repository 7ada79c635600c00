"""The list against the plainest model there is: try each rule in turn, with the standard library's networks."""

from __future__ import annotations

import ipaddress
import random
from functools import cache
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from esockd_cidr import AccessList, DuplicateRule, UnknownRule, _blocks
from esockd_cidr._blocks import BLOCK

Pair: TypeAlias = "tuple[str, str]"
AnyAddress: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


read = cache(ipaddress.ip_network)


def matches(target: str, peer: AnyAddress | None) -> bool:
    if target == "all":
        return True
    if target == "unix:" or peer is None:
        return target == "unix:" and peer is None
    return peer in read(target)


def decide(rules: list[Pair], peer: AnyAddress | None) -> int | None:
    return next((index for index, (_, target) in enumerate(rules) if matches(target, peer)), None)


def edges(rules: list[Pair]) -> list[AnyAddress]:
    """Every address at which anything can change, with both its neighbours."""
    found: set[AnyAddress] = {
        ipaddress.ip_address("0.0.0.0"),
        ipaddress.ip_address("::"),
        MAPPED[0] - 1,
        MAPPED[-1] + 1,
    }
    for _, target in rules:
        if target not in ("all", "unix:"):
            network = read(target)
            make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
            for value in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
                if 0 <= value < 1 << network.max_prefixlen:
                    found.add(make(value))
    return [address for address in found if address not in MAPPED]


def check(access: AccessList, rules: list[Pair], default: str, addresses: list[AnyAddress]) -> None:
    for peer in [*addresses, None]:
        index = decide(rules, peer)
        given = "unix:" if peer is None else peer
        found = access.match(given)
        assert (None if found is None else found.index) == index
        assert access.allows(given if peer is None else str(peer)) == (
            (default if index is None else rules[index][0]) == "allow"
        )


ipv4: st.SearchStrategy[str] = st.builds(
    lambda value, length: str(ipaddress.IPv4Network((10 << 24 | value, length), strict=False)),
    st.integers(0, 15) | st.integers(0, 2**24 - 1),
    st.integers(0, 32),
)
ipv6: st.SearchStrategy[str] = st.builds(
    lambda base, value, length: str(ipaddress.IPv6Network((base | value, length), strict=False)),
    st.sampled_from([0x20010DB8 << 96, 0xFFFE << 32, 0]),
    st.integers(0, 15) | st.integers(0, 15).map(lambda value: value << 62),
    st.integers(0, 128),
).filter(lambda text: not (ipaddress.ip_network(text).subnet_of(MAPPED)))  # type: ignore[arg-type]
pairs = st.tuples(st.sampled_from(["allow", "deny"]), ipv4 | ipv6 | ipv4 | ipv6 | st.sampled_from(["all", "unix:"]))


@given(st.lists(pairs, max_size=30, unique=True), st.sampled_from(["allow", "deny"]))
def test_any_list_decides_like_the_model_and_shadows_what_the_model_never_reaches(
    rules: list[Pair], default: str
) -> None:
    access = AccessList(rules, default)
    addresses = edges(rules)
    check(access, rules, default, addresses)
    deciding = {decide(rules, peer) for peer in [*addresses, None]}
    assert access.shadowed() == [rule for index, rule in enumerate(access) if index not in deciding]
    assert AccessList.parse(str(access), default).rules == access.rules


class Changes(RuleBasedStateMachine):
    """Long random sequences of changes, both families, compared after each one."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[Pair] = []
        self.default = "allow"
        self.access = AccessList()

    @initialize(rules=st.lists(pairs, max_size=10, unique=True), default=st.sampled_from(["allow", "deny"]))
    def begin(self, rules: list[Pair], default: str) -> None:
        self.pairs, self.default, self.access = rules, default, AccessList(rules, default)

    @rule(pair=pairs, data=st.data())
    def insert(self, pair: Pair, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.pairs)))
        if pair in self.pairs:
            with pytest.raises(DuplicateRule):
                self.access.insert(position, pair)
        else:
            self.access.insert(position, pair)
            self.pairs.insert(position, pair)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.pairs))
        self.access.remove(pair)
        self.pairs.remove(pair)

    @rule(pair=pairs)
    def remove_what_is_not_there(self, pair: Pair) -> None:
        if pair not in self.pairs:
            with pytest.raises(UnknownRule):
                self.access.remove(pair)

    @rule(rules=st.lists(pairs, max_size=10, unique=True))
    def replace(self, rules: list[Pair]) -> None:
        self.access.replace(rules)
        self.pairs = rules

    @invariant()
    def decides_like_the_model(self) -> None:
        assert [(str(rule.action), rule.target) for rule in self.access] == [
            (action, AccessList([(action, target)]).rules[0].target) for action, target in self.pairs
        ]
        check(self.access, self.pairs, self.default, edges(self.pairs))


TestChanges = Changes.TestCase
TestChanges.settings = settings(stateful_step_count=20)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [2, BLOCK])
def test_long_sequences_of_changes_in_large_lists_decide_like_the_model(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_blocks, "BLOCK", block)
    chance = random.Random(seed)

    def pair() -> Pair:
        version, corner = chance.choice([(4, 10 << 24), (4, 172 << 24), (6, 0x20010DB8 << 96), (6, 0xFD << 120)])
        width = 32 if version == 4 else 128
        length = chance.choice((8, 16, 20, 24, 28, 32)) * width // 32
        value = corner | chance.getrandbits(width - 8) & -1 << width - length
        network = ipaddress.ip_network((value, length)) if version == 4 else ipaddress.IPv6Network((value, length))
        return chance.choice(["allow", "deny"]), str(network)

    start = {pair(): None for _ in range(chance.choice((0, 900)))}
    rules = list(start)
    access = AccessList(rules, "deny")
    for _ in range(600):
        if rules and chance.random() < 0.3:
            gone = chance.choice(rules)
            access.remove(gone)
            rules.remove(gone)
            near = ipaddress.ip_network(gone[1])
        else:
            new = pair()
            if new in rules:
                continue
            position = chance.choice((0, len(rules), chance.randint(0, len(rules))))
            access.insert(position, new)
            rules.insert(position, new)
            near = ipaddress.ip_network(new[1])
        check(access, rules, "deny", [near[0], near[-1]])
    some = chance.sample(edges(rules), 60)
    check(access, rules, "deny", some)
    check(AccessList(rules, "deny"), rules, "deny", some)
