"""How rules, networks and whole texts are read and written."""

from __future__ import annotations

import copy
import ipaddress
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cidr import (
    AccessList,
    Action,
    CidrError,
    DuplicateRule,
    HitsNotCounted,
    InvalidAddress,
    InvalidPosition,
    InvalidRule,
    Network,
    Rule,
    Scope,
    UnknownRule,
    parse_network,
)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", Network(4, 10 << 24, 8)),
        ("0.0.0.0/0", Network(4, 0, 0)),
        ("192.168.1.1", Network(4, 0xC0A80101, 32)),
        ("2001:db8::/32", Network(6, 0x20010DB8 << 96, 32)),
        ("2001:0DB8:0:0::/32", Network(6, 0x20010DB8 << 96, 32)),
        ("::/0", Network(6, 0, 0)),
        ("::1", Network(6, 1, 128)),
        ("64:ff9b::10.0.0.0/104", Network(6, 0x64FF9B << 96 | 10 << 24, 104)),
    ],
)
def test_an_address_is_a_network_of_one_and_a_prefix_makes_it_wider(text: str, network: Network) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize("text", ["10.0.0.0/08", "10.0.0.0/0000000000000000000000000000000008"])
def test_leading_zeros_are_tolerated_in_a_prefix_length(text: str) -> None:
    assert parse_network(text) == parse_network("10.0.0.0/8")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::ffff:a00:0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_networks_of_ipv4_mapped_addresses_are_ipv4_networks(text: str, same: str) -> None:
    assert parse_network(text) == parse_network(same)
    assert parse_network(text).version == 4


def test_a_prefix_that_reaches_beyond_the_mapped_addresses_is_an_ipv6_network() -> None:
    assert parse_network("::ffff:10.0.0.0/95") == parse_network("::fffe:0:0/95")


def test_bits_right_of_the_prefix_are_cleared_and_the_caller_can_see_which() -> None:
    network = parse_network("10.1.2.3/8")
    assert network == parse_network("10.0.0.0/8")
    assert network.host_bits == 0x010203
    assert parse_network("::ffff:10.1.2.3/104").host_bits == 0x010203
    assert parse_network("2001:db8::5/64").host_bits == 5
    assert parse_network("10.0.0.0/8").host_bits == 0
    assert Rule.parse("deny 10.1.2.3/8").masked
    assert not Rule.parse("deny 10.0.0.0/8").masked
    assert not Rule.parse("deny all").masked


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an IPv4 or IPv6 address"),
        ("/8", "not an IPv4 or IPv6 address"),
        ("10/8", "four parts"),
        ("10.0.0/24", "four parts"),
        ("10.0.0.0/33", "an IPv4 prefix length is 0 to 32"),
        ("::/129", "an IPv6 prefix length is 0 to 128"),
        ("10.0.0.0/99999999999999999999", "an IPv4 prefix length is 0 to 32"),
        ("10.0.0.0/", "plain digits"),
        ("10.0.0.0/+8", "plain digits"),
        ("10.0.0.0/-1", "plain digits"),
        ("10.0.0.0/8.", "plain digits"),
        ("10.0.0.0/8_0", "plain digits"),
        ("10.0.0.0/٨", "plain digits"),
        ("10.0.0.0/8/8", "plain digits"),
        ("10.0.0.0/ 8", "plain digits"),
        ("10.0.0.0/255.0.0.0", "such as 24, not a mask"),
        ("10.0.0.0/0.255.255.255", "such as 24, not a mask"),
        ("010.0.0.0/8", "leading zeros"),
        ("10.00.0.0/8", "leading zeros"),
        ("::ffff:010.0.0.0", "not an IPv6 address"),
        ("256.0.0.0", "0 to 255"),
        ("10.0.0.0 /8", "blanks"),
        (" 10.0.0.0/8", "blanks"),
        ("10.0.0.0/8 ", "plain digits"),
        ("10.0.0.0\n", "blanks"),
        ("10.0.0.0+", "not an IPv4 or IPv6 address"),
        ("10.0.0.0x", "addresses, not names"),
        ("10.0.0.0\0", "not an IPv4 or IPv6 address"),
        ("\ud800", "not an IPv4 or IPv6 address"),
        ("\uff11.2.3.4", "not an IPv4 or IPv6 address"),
        ("fe80::1%eth0", "zone id"),
        ("fe80::%1/64", "zone id"),
        ("10.0.0.1%eth0", "zone id"),
        ("[::1%eth0]:80", "zone id"),
        ("1::2::3", "not an IPv6 address"),
        ("12345::", "not an IPv6 address"),
        ("localhost", "names are not looked up"),
        ("localhost:80", "not an IPv6 address"),
        ("10.0.0.1-10.0.0.9", "addresses, not names"),
        ("0x7f.0.0.1", "addresses, not names"),
        ("all", "addresses, not names"),
    ],
)
def test_what_is_not_a_network_is_an_error_that_names_the_text_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidRule) as raised:
        parse_network(text)
    assert reason in str(raised.value)
    assert (raised.value.option, raised.value.value, raised.value.line) == ("network", text, None)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.0.1:80", "10.0.0.1"),
        ("10.0.0.1:", "10.0.0.1"),
        ("10.0.0.0/8:80", "10.0.0.0/8"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::]/32", "2001:db8::/32"),
        ("[::1]", "::1"),
    ],
)
def test_a_port_in_a_rule_is_explained_with_what_to_write_instead(text: str, plain: str) -> None:
    with pytest.raises(InvalidRule, match="a port has no place in a rule") as raised:
        Rule.parse(f"deny {text}")
    assert raised.value.hint == f"Write {plain}."
    assert str(Rule("deny", plain)) == f"deny {plain}"


@pytest.mark.parametrize("value", [None, 8, b"10.0.0.0/8", ["10.0.0.0/8"], ipaddress.ip_network("10.0.0.0/8")])
def test_a_network_of_another_type_is_an_error_that_names_the_type(value: object) -> None:
    with pytest.raises(InvalidRule, match=type(value).__name__):
        parse_network(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "first", "prefixlen", "reason"),
    [
        (5, 0, 0, "^version is 5: .* 4 or 6"),
        (4, 0, 33, "^prefixlen is 33: an IPv4 prefix length is 0 to 32"),
        (4, 0, -1, "^prefixlen is -1: an IPv4 prefix length is 0 to 32"),
        (4, -1, 32, "^first is -1: an IPv4 address"),
        (4, 1 << 32, 32, "^first is 4294967296: an IPv4 address"),
        (6, 1 << 128, 128, "^first is .* an IPv6 address"),
        (4, 1, 31, "^first is 1: .* to the right of its prefix"),
        (6, 0xFFFF << 32, 96, "^first is .* written as IPv4"),
    ],
)
def test_a_network_made_of_impossible_numbers_is_an_error(
    version: int, first: int, prefixlen: int, reason: str
) -> None:
    with pytest.raises(InvalidRule, match=reason):
        Network(version, first, prefixlen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("deny 10.0.0.0/8", Rule(Action.DENY, parse_network("10.0.0.0/8"))),
        ("allow all", Rule(Action.ALLOW, Scope.ALL)),
        ("allow unix:", Rule("allow", "unix:")),
        ("deny all;", Rule("deny", "all")),
        ("  deny \t 10.0.0.1 ; \r\n", Rule("deny", "10.0.0.1")),
    ],
)
def test_a_rule_is_an_action_and_a_target_with_or_without_a_semicolon(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a rule is allow or deny"),
        ("deny", "a rule is allow or deny"),
        ("deny;", "a rule is allow or deny"),
        ("10.0.0.0/8", "a rule is allow or deny"),
        ("Deny all", "a rule is allow or deny"),
        ("denyall", "a rule is allow or deny"),
        ("reject all", "a rule is allow or deny"),
        ("deny ALL", "addresses, not names"),
        ("deny unix:/tmp/s", "not an IPv6 address"),
        ("deny all all", "blanks"),
        ("deny 10.0.0.0/8 # office", "plain digits"),
        ("deny 10.0.0.0/8;;", "plain digits"),
        ("deny all; allow all", "blanks"),
        ("deny\u00a0all", "a rule is allow or deny"),
        ("deny 10.0.0.0/33", "an IPv4 prefix length is 0 to 32"),
    ],
)
def test_what_is_not_a_rule_is_an_error_that_names_the_whole_text_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidRule) as raised:
        Rule.parse(text)
    assert raised.value.value == text
    assert reason in raised.value.reason


@pytest.mark.parametrize(
    "value",
    [
        None,
        8,
        b"deny all",
        ("deny",),
        ("deny", "all", "all"),
        ("deny", 8),
        (8, "all"),
        ("drop", "all"),
        {"deny": "all"},
    ],
)
def test_a_rule_of_another_shape_is_an_error(value: object) -> None:
    with pytest.raises(InvalidRule):
        AccessList([value])  # type: ignore[list-item]
    with pytest.raises(InvalidRule):
        AccessList().append(value)  # type: ignore[arg-type]


def test_rule_parse_takes_text_only() -> None:
    with pytest.raises(InvalidRule, match="not bytes"):
        Rule.parse(b"deny all")  # type: ignore[arg-type]


def test_rules_may_be_given_as_text_pairs_and_rules() -> None:
    access = AccessList(["deny 10.0.0.1", ("deny", "10.0.0.2"), Rule("deny", "10.0.0.3"), (Action.ALLOW, Scope.ALL)])
    assert [str(rule) for rule in access] == ["deny 10.0.0.1", "deny 10.0.0.2", "deny 10.0.0.3", "allow all"]


def test_one_text_is_not_taken_for_a_list_of_rules() -> None:
    with pytest.raises(InvalidRule, match=r"AccessList\.parse"):
        AccessList("deny all")


@pytest.mark.parametrize("default", ["drop", None, True, ""])
def test_a_default_is_allow_or_deny(default: object) -> None:
    with pytest.raises(InvalidRule, match=r"^default is .*: it takes allow or deny"):
        AccessList(default=default)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("deny 10.0.0.1/32", "deny 10.0.0.1"),
        ("deny 10.0.0.1/8", "deny 10.0.0.0/8"),
        ("allow 2001:0DB8:0:0::/032", "allow 2001:db8::/32"),
        ("allow ::ffff:10.0.0.0/104", "allow 10.0.0.0/8"),
        ("allow ::1", "allow ::1"),
        ("deny unix:", "deny unix:"),
        ("deny all;", "deny all"),
    ],
)
def test_a_rule_prints_as_it_would_be_written(text: str, written: str) -> None:
    assert str(Rule.parse(text)) == written


FILE = """\
# who may reach the broker
allow   192.168.0.0/16;   # the office
allow 10.0.0.0/8; deny 10.0.0.1/32;\r
\tdeny 2001:db8::/32
allow unix: ;

deny all;"""


def test_a_whole_text_may_hold_comments_blank_lines_and_several_rules_a_line() -> None:
    access = AccessList.parse(FILE, default="deny")
    assert str(access) == (
        "allow 192.168.0.0/16;\nallow 10.0.0.0/8;\ndeny 10.0.0.1;\ndeny 2001:db8::/32;\nallow unix:;\ndeny all;\n"
        "# everyone else: deny\n"
    )
    assert access.default is Action.DENY
    assert AccessList.parse(str(access)).rules == access.rules


def test_a_list_that_allows_by_default_prints_its_rules_and_nothing_else() -> None:
    assert str(AccessList(["deny all"])) == "deny all;\n"
    assert str(AccessList()) == ""


@pytest.mark.parametrize(
    ("text", "line", "given"),
    [
        ("allow all;\n\nallow 10.0.0.0/33;", 3, "allow 10.0.0.0/33"),
        ("deny", 1, "deny"),
        ("allow all;\ndeny all;;", 2, ""),
        ("# fine\nallow 10.0.0.1 deny all;", 2, "allow 10.0.0.1 deny all"),
        ("allow\n10.0.0.1;", 1, "allow"),
        ("\ufeffallow all;", 1, "\ufeffallow all"),
    ],
)
def test_an_error_in_a_whole_text_names_line_and_rule(text: str, line: int, given: str) -> None:
    with pytest.raises(InvalidRule) as raised:
        AccessList.parse(text)
    assert (raised.value.line, raised.value.value) == (line, given)
    assert str(raised.value).startswith(f"line {line}: rule is {given!r}: ")


def test_a_duplicate_in_a_whole_text_names_the_line_of_the_second() -> None:
    with pytest.raises(DuplicateRule) as raised:
        AccessList.parse("deny 10.0.0.0/8;\nallow 10.0.0.0/8;\ndeny 10.1.2.3/8;")
    assert (raised.value.line, raised.value.value) == (3, Rule.parse("deny 10.0.0.0/8"))
    assert str(raised.value).startswith("line 3: rule is Rule('deny', '10.0.0.0/8'): the list holds it already. ")


def test_a_whole_text_has_to_be_decoded() -> None:
    with pytest.raises(InvalidRule, match="Decode bytes"):
        AccessList.parse(b"deny all;")  # type: ignore[arg-type]


def test_an_error_shows_no_more_than_the_beginning_of_a_long_text_and_escapes_the_rest() -> None:
    with pytest.raises(InvalidRule) as raised:
        Rule.parse('deny "\x1b[31m' + "x" * 100_000)
    assert str(raised.value).startswith("rule is 'deny \"\\x1b[31mxxx")
    assert len(str(raised.value)) < 300
    with pytest.raises(InvalidRule) as raised:
        AccessList([list(range(100_000))])  # type: ignore[list-item]
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "kind", [InvalidRule, InvalidAddress, InvalidPosition, DuplicateRule, UnknownRule, HitsNotCounted]
)
def test_every_error_is_a_value_error_of_one_base_and_survives_copying_and_pickling(kind: type[CidrError]) -> None:
    error = kind("it takes allow or deny", option="action", value="drop", hint="Write deny.", line=3)
    assert isinstance(error, ValueError)
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert vars(twin) == vars(error)
        assert str(twin) == "line 3: action is 'drop': it takes allow or deny. Write deny."


def test_an_error_that_is_about_no_argument_or_no_value_says_what_there_is() -> None:
    assert str(InvalidRule("why")) == "why."
    assert str(InvalidRule("why", value=None)) == "None: why."
    assert str(InvalidRule("why", option="rule", hint="Do this.")) == "rule: why. Do this."


networks = st.one_of(
    st.builds(
        lambda value, length: ipaddress.ip_network((value, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda value, length: ipaddress.IPv6Network((value, length), strict=False),
        st.integers(1 << 48, 2**128 - 1),
        st.integers(0, 128),
    ),
)


@given(networks)
def test_networks_are_those_of_the_standard_library(expected: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    network = parse_network(str(expected))
    assert network.version == expected.version
    assert network.first == int(expected.network_address)
    assert network.last == int(expected.broadcast_address)
    assert network.prefixlen == expected.prefixlen
    assert parse_network(str(network)) == network


@given(st.text(max_size=30) | st.text(alphabet="0123456789./: abcdef%-+x", max_size=30))
def test_any_text_is_a_network_or_an_error_of_this_package(text: str) -> None:
    try:
        network = parse_network(text)
    except InvalidRule:
        return
    plain = text.partition("/")[0]
    address = ipaddress.ip_address(plain)  # what is accepted here the standard library accepts too
    assert network.version == (4 if getattr(address, "ipv4_mapped", None) and network.version == 4 else address.version)


def test_rules_networks_and_lists_can_be_copied_and_pickled() -> None:
    access = AccessList.parse(FILE, default="deny", count_hits=True)
    for twin in (copy.copy(access), copy.deepcopy(access), pickle.loads(pickle.dumps(access))):
        twin.remove("deny all")
        assert len(twin) == len(access) - 1
        assert twin.default is Action.DENY
        assert set(twin.hits().values()) == {0}
    assert "deny all" in access


def test_a_list_says_what_it_is() -> None:
    assert repr(AccessList(["deny all"], default="deny")) == "<AccessList: 1 rules, default deny>"
