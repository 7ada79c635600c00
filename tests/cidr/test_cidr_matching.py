"""Which rule decides about an address, in whatever form the address comes."""

from __future__ import annotations

import ipaddress
import pickle
import socket
from typing import Any

import pytest

from esockd_cidr import AccessList, Action, CidrError, InvalidAddress, Match, Rule


def test_the_first_rule_that_matches_decides() -> None:
    access = AccessList(["deny 192.168.1.1", "allow 192.168.1.0/24", "deny all"])
    assert not access.allows("192.168.1.1")
    assert access.allows("192.168.1.2")
    assert not access.allows("192.168.2.1")
    assert not access.allows("2001:db8::1")


def test_a_wide_rule_before_a_narrow_one_decides_for_both() -> None:
    access = AccessList(["allow 10.0.0.0/8", "deny 10.1.0.0/16", "deny 0.0.0.0/0"])
    assert access.allows("10.1.2.3")
    assert not access.allows("11.0.0.0")


@pytest.mark.parametrize("default", ["allow", "deny"])
def test_the_default_decides_where_no_rule_matches(default: str) -> None:
    access = AccessList(["allow 10.0.0.0/8", "deny 11.0.0.0/8"], default=default)
    assert access.allows("10.0.0.1")
    assert not access.allows("11.0.0.1")
    for other in ("12.0.0.1", "::1", "unix:"):
        assert access.allows(other) == (default == "allow")
        assert access.match(other) is None


def test_match_names_action_rule_and_position() -> None:
    access = AccessList(["deny 192.168.1.1", "allow 192.168.1.0/24", "allow ::1", "deny unix:", "deny all"])
    assert access.match("192.168.1.7") == Match(Action.ALLOW, Rule.parse("allow 192.168.1.0/24"), 1)
    assert access.match("::1") == Match(Action.ALLOW, Rule.parse("allow ::1"), 2)
    assert access.match("unix:") == Match(Action.DENY, Rule.parse("deny unix:"), 3)
    assert access.match("::2") == Match(Action.DENY, Rule.parse("deny all"), 4)


def test_a_rule_for_all_decides_for_ipv4_ipv6_and_unix_and_hides_what_stands_behind_it() -> None:
    access = AccessList(["allow 10.0.0.1", "deny all", "allow 10.0.0.2", "allow ::1", "allow unix:", "allow all"])
    assert access.allows("10.0.0.1")
    for refused in ("10.0.0.2", "::1", "unix:", "1.1.1.1"):
        assert access.match(refused) == Match(Action.DENY, Rule.parse("deny all"), 1)


def test_rules_for_one_family_leave_the_other_alone() -> None:
    access = AccessList(["deny 0.0.0.0/0"])
    assert access.allows("::1")
    assert access.allows("unix:")
    access = AccessList(["deny ::/0"])
    assert access.allows("0.0.0.1")
    assert access.allows("unix:/run/broker.sock")


@pytest.mark.parametrize("prefixlen", [0, 1, 31, 32])
def test_ipv4_rules_end_where_their_network_ends(prefixlen: int) -> None:
    network = ipaddress.IPv4Network(("128.0.0.0" if prefixlen else "0.0.0.0", prefixlen))
    access = AccessList([f"deny {network}"])
    assert not access.allows(str(network[0]))
    assert not access.allows(str(network[-1]))
    for outside in {int(network[0]) - 1, int(network[-1]) + 1}:
        if 0 <= outside < 2**32:
            assert access.allows(outside, 4)


@pytest.mark.parametrize("prefixlen", [0, 1, 32, 47, 48, 63, 64, 65, 95, 96, 127, 128])
def test_ipv6_rules_have_every_length_and_end_where_their_network_ends(prefixlen: int) -> None:
    network = ipaddress.IPv6Network((0x2001_0DB8 << 96 | 1 << 64 | 1, prefixlen), strict=False)
    access = AccessList([f"deny {network}"])
    assert not access.allows(str(network[0]))
    assert not access.allows(str(network[-1]))
    for outside in {int(network[0]) - 1, int(network[-1]) + 1}:
        if 0 <= outside < 2**128:
            assert access.allows(outside, 6)


def test_mapped_peers_match_ipv4_rules_and_mapped_rules_are_ipv4_rules() -> None:
    access = AccessList(["deny 10.0.0.0/8", "deny ::ffff:11.0.0.0/104", "allow ::/0"], default="deny")
    for refused in ("10.1.2.3", "::ffff:10.1.2.3", "::ffff:0a01:0203", "11.1.2.3", "::ffff:11.1.2.3"):
        assert not access.allows(refused)
    assert access.match("::ffff:12.0.0.1") is None
    assert access.allows("::fffe:10.1.2.3")


@pytest.mark.parametrize("zone", ["eth0", "2", "", "a%b"])
def test_zone_ids_of_peers_are_ignored(zone: str) -> None:
    assert not AccessList(["deny fe80::/10"]).allows(f"fe80::1%{zone}")
    assert not AccessList(["deny 10.0.0.0/8"]).allows(f"::ffff:10.0.0.1%{zone}")


def forms(text: str) -> list[tuple[Any, ...]]:
    address = ipaddress.ip_address(text)
    return [
        (text,),
        (address,),
        (address.packed,),
        (int(address), address.version),
        (ipaddress.ip_interface(text),),
    ]


@pytest.mark.parametrize("form", range(5), ids=["text", "ipaddress", "packed", "int", "interface"])
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10.0.0.1", "deny 10.0.0.0/8"),
        ("2001:db8::1", "deny 2001:db8::/32"),
        ("::ffff:10.0.0.1", "deny 10.0.0.0/8"),
        ("0.0.0.0", "deny 0.0.0.0"),
        ("::", "deny ::"),
    ],
)
def test_an_address_may_be_text_packed_bytes_an_integer_or_an_ipaddress_object(text: str, rule: str, form: int) -> None:
    access = AccessList(["allow 127.0.0.1", rule])
    given = forms(text)[form]
    assert not access.allows(*given)
    found = access.match(*given)
    assert found is not None
    assert str(found.rule) == rule


def test_text_of_a_subclass_of_str_is_text() -> None:
    class Host(str):
        __slots__ = ()

    assert not AccessList(["deny 10.0.0.1"]).allows(Host("10.0.0.1"))


@pytest.mark.parametrize(
    "given",
    [
        ("",),
        ("localhost",),
        ("10.0.0",),
        ("010.0.0.1",),
        ("10.0.0.1 ",),
        ("10.0.0.1\0",),
        ("10.0.0.256",),
        ("10.0.0.1%eth0",),
        ("10.0.0.0/8",),
        ("10.0.0.1:80",),
        ("[::1]",),
        ("::1/128",),
        (":",),
        ("unix",),
        ("\ud800",),
        (b"",),
        (b"\0\0\0",),
        (b"10.0.0.1",),
        (None,),
        (1.5,),
        (True, 4),
        (1,),
        (1, 5),
        (-1, 4),
        (1 << 32, 4),
        (1 << 128, 6),
        (-1, 6),
        ("10.0.0.1", 4),
        (b"\0\0\0\0", 4),
        (ipaddress.ip_network("10.0.0.0/8"),),
        (socket.AF_INET,),
    ],
    ids=repr,
)
def test_what_is_not_an_address_is_an_error_and_not_an_answer(given: tuple[Any, ...]) -> None:
    access = AccessList(["allow 10.0.0.0/8"])
    with pytest.raises(InvalidAddress) as raised:
        access.allows(*given)
    error = raised.value
    assert (error.option, error.value) in {("address", given[0]), ("version", given[1] if len(given) > 1 else None)}
    assert str(error).startswith(f"{error.option} is ")
    assert error.reason in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(InvalidAddress):
        access.match(*given)


def test_an_integer_without_a_version_is_told_to_bring_it() -> None:
    with pytest.raises(InvalidAddress, match=r"version is None: an integer needs its version with it, 4 or 6"):
        AccessList(["deny 10.0.0.0/8"]).allows(1)


@pytest.mark.parametrize(
    ("peername", "allowed"),
    [
        (("10.0.0.1", 40000), False),
        (("10.0.0.2", 40000), True),
        (("::1", 40000, 0, 0), False),
        (("fe80::1%eth0", 40000, 0, 2), True),
        (("::ffff:10.0.0.1", 40000, 0, 0), False),
    ],
)
def test_the_tuple_that_a_socket_gives_is_an_address(
    peername: tuple[str, int] | tuple[str, int, int, int], allowed: bool
) -> None:
    access = AccessList(["deny 10.0.0.1", "deny ::1"])
    assert access.allows(peername) is allowed
    assert (access.match(peername) is None) is allowed


@pytest.mark.parametrize("given", [(), ("10.0.0.1",), ("10.0.0.1", 1, 2), (10, 80), ("unix:", 80), ("localhost", 80)])
def test_another_tuple_or_a_name_in_one_is_not_an_address(given: Any) -> None:
    with pytest.raises(InvalidAddress, match=r"^address is "):
        AccessList(["deny 10.0.0.1"]).allows(given)


@pytest.mark.parametrize(("text", "host"), [("10.0.0.1:80", "10.0.0.1"), ("[::1]:80", "::1"), ("[::1]", "::1")])
def test_a_port_in_an_address_is_explained_with_what_to_give_instead(text: str, host: str) -> None:
    with pytest.raises(InvalidAddress, match="a port is not part of an address") as raised:
        AccessList(["deny 10.0.0.1"]).allows(text)
    assert raised.value.hint is not None
    assert repr(host) in raised.value.hint


@pytest.mark.parametrize("count_hits", [False, True])
def test_where_no_rule_asks_for_the_address_it_is_not_read(count_hits: bool) -> None:
    access = AccessList(count_hits=count_hits)
    assert access.allows("not an address")
    assert access.match("not an address") is None
    access.append("deny all")
    assert not access.allows("not an address")
    assert access.match("not an address") == Match(Action.DENY, Rule.parse("deny all"), 0)
    access.append("deny unix:")
    with pytest.raises(InvalidAddress):
        access.allows("not an address")


@pytest.mark.parametrize(
    ("rules", "shadowed"),
    [
        ([], []),
        (["deny 10.0.0.0/8", "allow 11.0.0.0/8", "deny all"], []),
        (["deny 10.0.0.0/8", "allow 10.0.0.0/8"], ["allow 10.0.0.0/8"]),
        (["deny 10.0.0.0/8", "deny 10.1.0.0/16"], ["deny 10.1.0.0/16"]),
        (["deny 10.1.0.0/16", "deny 10.0.0.0/8"], []),
        (["allow 10.0.0.0/9", "allow 10.128.0.0/9", "deny 10.0.0.0/8"], ["deny 10.0.0.0/8"]),
        (
            ["allow all", "deny 10.0.0.1", "deny ::1", "deny unix:", "deny all"],
            ["deny 10.0.0.1", "deny ::1", "deny unix:", "deny all"],
        ),
        (["deny unix:", "allow unix:", "allow all"], ["allow unix:"]),
        (["deny 0.0.0.0/0", "deny ::/0", "allow all"], []),
        (["deny 0.0.0.0/0", "deny ::/0", "deny unix:", "allow all"], ["allow all"]),
        (["deny 0.0.0.0/0", "allow all", "deny ::1"], ["deny ::1"]),
        (["deny ::fffe:0:0/96", "allow ::fffe:0:0/95"], ["allow ::fffe:0:0/95"]),
        (["deny ::fffe:0:0/96", "allow ::fffe:0:0/94"], []),
        (["deny ::fffe:0:0/97", "allow ::fffe:0:0/95"], []),
    ],
)
def test_shadowed_lists_the_rules_that_can_never_decide(rules: list[str], shadowed: list[str]) -> None:
    assert [str(rule) for rule in AccessList(rules).shadowed()] == shadowed


def test_hits_count_for_each_rule_and_for_the_default_how_often_it_decided() -> None:
    access = AccessList(["deny 10.0.0.1", "allow 10.0.0.0/8", "deny unix:"], count_hits=True)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "11.0.0.1", "::1"):
        access.allows(address)
    access.match("10.0.0.1")
    deny, allow, unix = access.rules
    assert access.hits() == {deny: 2, allow: 2, unix: 0, None: 2}
    assert list(access.hits()) == [deny, allow, unix, None]


def test_hits_stay_with_their_rules_through_changes_and_start_anew_with_a_replacement() -> None:
    access = AccessList(["deny 10.0.0.1", "allow 10.0.0.2"], count_hits=True)
    access.allows("10.0.0.1")
    access.allows("10.0.0.2")
    access.prepend("deny ::/0")
    access.remove("deny 10.0.0.1")
    access.append("deny 10.0.0.1")
    assert list(access.hits().values()) == [0, 1, 0, 0]
    access.replace(access.rules, default="deny")
    assert list(access.hits().values()) == [0, 0, 0, 0]
    access.allows("9.9.9.9")
    assert access.hits()[None] == 1


def test_a_list_that_was_not_asked_to_count_says_so() -> None:
    with pytest.raises(CidrError, match="count_hits=True"):
        AccessList().hits()
