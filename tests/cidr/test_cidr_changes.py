"""Changing a list while it is in use: what a change does, what a failed one leaves, and how large lists stay small."""

from __future__ import annotations

import random
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from esockd_cidr import AccessList, Action, DuplicateRule, InvalidPosition, InvalidRule, Network, Rule, UnknownRule
from esockd_cidr._table import TableV6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def written(access: AccessList) -> list[str]:
    return [str(rule) for rule in access]


def test_rules_can_be_put_first_last_and_between() -> None:
    access = AccessList()
    access.append("deny 10.0.0.2")
    access.append(("allow", "10.0.0.4"))
    access.prepend(Rule.parse("allow 10.0.0.1"))
    access.insert(2, "deny 10.0.0.3")
    access.insert(4, "deny all")
    access.insert(0, "allow unix:")
    assert written(access) == [
        "allow unix:",
        "allow 10.0.0.1",
        "deny 10.0.0.2",
        "deny 10.0.0.3",
        "allow 10.0.0.4",
        "deny all",
    ]
    assert [access.allows(f"10.0.0.{host}") for host in range(1, 6)] == [True, False, False, True, False]
    assert len(access) == 6


def test_a_rule_put_first_decides_at_once_and_removing_it_brings_back_what_it_hid() -> None:
    access = AccessList(["allow 10.1.0.0/16", "deny 10.0.0.0/8"])
    access.prepend("deny 10.1.2.0/24")
    assert not access.allows("10.1.2.3")
    access.prepend("allow all")
    assert access.allows("10.1.2.3")
    assert access.allows("10.2.0.1")
    access.remove("allow all")
    access.remove("deny 10.1.2.0/24")
    assert access.allows("10.1.2.3")
    assert not access.allows("10.2.0.1")


def test_a_rule_can_be_named_by_any_text_that_reads_as_it() -> None:
    access = AccessList(["deny 10.0.0.0/8"])
    assert "deny 10.9.9.9/08;" in access
    assert ("allow", "10.0.0.0/8") not in access
    access.remove("deny ::ffff:10.0.0.0/104")
    assert len(access) == 0


def test_one_network_may_have_a_rule_of_each_action() -> None:
    access = AccessList(["deny 10.0.0.0/8", "allow 10.0.0.0/8", "deny all", "allow all", "allow unix:", "deny unix:"])
    access.remove("deny 10.0.0.0/8")
    access.remove("deny all")
    access.remove("allow unix:")
    assert written(access) == ["allow 10.0.0.0/8", "allow all", "deny unix:"]
    assert access.allows("10.0.0.1")
    assert access.allows("unix:")


def test_a_list_without_rules_is_still_true_because_it_decides_by_its_default() -> None:
    assert AccessList(default="deny")
    assert len(AccessList()) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda access: access.append("deny 10.0.0.0/8"), DuplicateRule),
        (lambda access: access.prepend("deny 10.1.2.3/8"), DuplicateRule),
        (lambda access: access.insert(1, "deny all"), DuplicateRule),
        (lambda access: access.append("deny unix:"), DuplicateRule),
        (lambda access: access.append("deny 10.0.0.0/33"), InvalidRule),
        (lambda access: access.remove("deny 10.0.0.0/33"), InvalidRule),
        (lambda access: access.remove("allow 10.0.0.0/8"), UnknownRule),
        (lambda access: access.remove("deny 10.0.0.0/9"), UnknownRule),
        (lambda access: access.remove("allow all"), UnknownRule),
        (lambda access: access.insert(-1, "deny 9.9.9.9"), InvalidPosition),
        (lambda access: access.insert(5, "deny 9.9.9.9"), InvalidPosition),
        (lambda access: access.replace(["deny 9.9.9.9", "deny 9.9.9.9"]), DuplicateRule),
        (lambda access: access.replace(["deny 9.9.9.9", "deny"]), InvalidRule),
        (lambda access: access.replace(["deny 9.9.9.9"], default="drop"), InvalidRule),
        (lambda access: access.replace(iter(["deny 9.9.9.9", None])), InvalidRule),
    ],
)
def test_a_change_that_fails_changes_nothing(change: Callable[[AccessList], None], error: type[Exception]) -> None:
    access = AccessList(["deny 10.0.0.0/8", "allow ::1", "deny unix:", "deny all"])
    before = access.rules
    with pytest.raises(error) as raised:
        change(access)
    assert str(raised.value)
    assert access.rules == before
    assert access.default is Action.ALLOW
    assert not access.allows("9.9.9.9")
    assert access.allows("::1")


def test_replace_exchanges_rules_and_keeps_the_default_unless_one_is_given() -> None:
    access = AccessList(["deny 10.0.0.1"], default="deny")
    access.replace(["allow 10.0.0.1"])
    assert written(access) == ["allow 10.0.0.1"]
    assert access.default is Action.DENY
    access.replace([], default="allow")
    assert access.allows("1.2.3.4")
    access.replace(AccessList(["deny all"]))
    assert not access.allows("1.2.3.4")


@pytest.mark.parametrize("width", [32, 128])
def test_adding_and_removing_for_ever_leaves_nothing_behind(width: int) -> None:
    access = AccessList(["deny 10.0.0.0/8", "deny 2001:db8::/32"])
    spans = spans_of(access)
    chance = random.Random(1)
    for _ in range(300):
        prefixlen = chance.randrange(width // 4, width + 1)
        first = chance.getrandbits(prefixlen) << width - prefixlen
        rule = Rule("allow", Network(4 if width == 32 else 6, first, prefixlen))
        access.prepend(rule)
        access.remove(rule)
        assert spans_of(access) == spans


def test_rules_inserted_for_ever_at_one_place_keep_order_and_hits() -> None:
    access = AccessList(["deny 1.0.0.0", "deny 1.0.0.1", "deny 1.0.0.2"], count_hits=True)
    expected = written(access)
    access.allows("1.0.0.1")
    for step in range(200):  # each halves the room between two neighbours, at two places in turn
        rule = f"deny 2.0.0.{step}"
        position = expected.index("deny 1.0.0.1") + step % 2
        access.insert(position, rule)
        expected.insert(position, rule)
        assert not access.allows(f"2.0.0.{step}")
    assert written(access) == expected
    assert access.match("1.0.0.2") is not None
    hits = access.hits()
    assert hits[Rule.parse("deny 1.0.0.1")] == 1
    assert hits[Rule.parse("deny 2.0.0.0")] == 1
    assert sum(hits.values()) == 202


@pytest.mark.parametrize("position", [0, 1, -1])
def test_thousands_of_rules_one_before_the_other_keep_their_order(position: int) -> None:
    access = AccessList(["allow 9.0.0.0", "allow 9.0.0.1"])
    for step in range(3000):
        access.insert(position if position >= 0 else len(access) - 1, ("deny", Network(4, step << 8, 24)))
    numbers = [rule.target.first >> 8 for rule in access if isinstance(rule.target, Network) and rule.action == "deny"]
    assert numbers == (list(range(3000)) if position < 0 else list(reversed(range(3000))))
    assert not access.allows("0.0.1.1")
    assert access.allows("0.200.0.1")


def spans_of(access: AccessList) -> int:
    return sum(table._count for table in (access._view.v4, access._view.v6))


def table_bytes(access: AccessList) -> int:
    """The size of all that a lookup may read, both families."""
    total = 0
    for table in (access._view.v4, access._view.v6):
        total += sys.getsizeof(table.pages) + sys.getsizeof(table.bounds)
        if isinstance(table.bounds, list):
            total += sum(map(sys.getsizeof, table.bounds))
        total += sum(map(sys.getsizeof, table.pages))
        if isinstance(table, TableV6):
            for starts, ranks in table.pages:
                total += sum(map(sys.getsizeof, (starts, starts.high, starts.low, ranks)))
    return total


@pytest.mark.parametrize(
    ("version", "prefixlens", "limit"), [(4, (16, 20, 22, 24, 24, 24, 32), 30), (6, (32, 40, 48, 56, 64), 30)]
)
def test_a_hundred_thousand_rules_take_at_most_thirty_bytes_each_in_the_compiled_table(
    version: int, prefixlens: tuple[int, ...], limit: int
) -> None:
    chance = random.Random(7)
    width = 32 if version == 4 else 128
    rules: dict[Rule, None] = {}
    while len(rules) < 100_000:
        prefixlen = chance.choice(prefixlens)
        first = chance.getrandbits(prefixlen) << width - prefixlen
        rules[Rule(chance.choice(["allow", "deny"]), Network(4 if version == 4 else 6, first, prefixlen))] = None
    access = AccessList(rules)
    assert table_bytes(access) <= limit * len(rules)
    for rule in chance.sample(list(rules), 50):
        access.remove(rule)
        access.prepend(rule)
        assert isinstance(rule.target, Network)
        found = access.match(rule.target.first, rule.target.version)
        assert found is not None
        assert (found.rule, found.index) == (rule, 0)
    assert table_bytes(access) <= limit * len(rules)


@contextmanager
def looking(*looks: Callable[[], object]) -> Iterator[None]:
    """Call each function over and over in a thread of its own; raise what one returns unless it is None."""
    failures: list[object] = []
    done = threading.Event()

    def repeat(look: Callable[[], object]) -> None:
        while not done.is_set() and not failures:
            try:
                failure = look()
            except Exception as error:  # noqa: BLE001 (reported below)
                failure = error
            if failure is not None:
                failures.append(failure)

    threads = [threading.Thread(target=repeat, args=[look]) for look in looks]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join(20)
    assert failures == []


def test_lookups_in_other_threads_see_each_rule_as_it_was_or_as_it_is() -> None:
    access = AccessList(["deny 10.0.0.0/16", "allow 10.0.0.0/8", "allow 2001:db8::/32"], default="deny")

    def look_refused() -> object:
        return [peer for peer in ("10.0.1.2", "11.0.0.1", "::1") if access.allows(peer)] or None

    def look_welcome() -> object:
        found = access.match("10.1.2.3")
        return None if found and found.action == "allow" and access.allows("2001:db8::1") else found

    chance = random.Random(3)
    held: list[str] = []
    with looking(look_refused, look_welcome):
        for step in range(600):
            if len(held) > 100 or (held and step % 3 == 2):
                access.remove(held.pop(chance.randrange(len(held))))
            else:
                rule = f"allow 10.{step % 200}.{chance.randrange(256)}.{step % 256}/{chance.choice((17, 24, 32))}"
                if rule not in access:
                    access.append(rule)
                    held.append(rule)


@pytest.mark.parametrize("peer", ["11.0.0.1", "2001:db8::1"])
def test_a_lookup_that_has_begun_sees_no_later_change_without_the_earlier_ones(peer: str) -> None:
    access = AccessList(["deny 10.0.0.0/8", "deny ::1"])
    begun = access._view  # as `allows` in a thread that is then held up
    rank = begun.rank(peer, None)
    access.append("deny all")
    access.prepend("allow 11.0.0.0/24")
    access.prepend("allow 2001:db8::/32")
    assert access.allows(peer)
    assert begun.rank(peer, None) == rank


def test_lookups_in_other_threads_see_all_of_a_replacement_or_nothing() -> None:
    first = [Rule("deny" if at % 2 else "allow", Network(4, at << 24, 8)) for at in range(128)]
    second = [Rule("allow" if at % 2 else "deny", Network(4, at << 24, 8)) for at in reversed(range(128))]
    access = AccessList(first)
    answers = [access.match("5.1.2.3"), AccessList(second).match("5.1.2.3")]

    def look() -> object:
        found = access.match("5.1.2.3")
        return None if found in answers else found

    with looking(look, look):
        for _ in range(40):
            access.replace(second)
            access.replace(first)
