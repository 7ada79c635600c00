"""`lint` finds everything that is the matter with a text of rules, each with its line."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cidr import AccessList, CidrError, Finding, Flaw, InvalidRule, Network, Rule, RuleAt, Scope, lint


def shown(text: str) -> list[tuple[int, str, str]]:
    return [(finding.line, finding.flaw, str(finding).partition(": ")[2]) for finding in lint(text)]


def hidden(text: str) -> dict[str, list[str]]:
    """For each shadowed rule, the rules that hide it."""
    return {f.text: [str(other.rule) for other in f.others] for f in lint(text) if f.flaw is Flaw.SHADOWED}


FILE = """\
# the office
allow 192.168.0.0/16;
deny  10.0.0.0/33; allow 10.0.0.1:80;
allow 192.168.0.0/16;

allow 10.0.0.9/8; allow 10.2.0.0/16;
deny 10.1.0.0/16;
"""


def test_every_finding_of_a_text_is_named_with_its_line_in_order() -> None:
    assert shown(FILE) == [
        (3, "invalid", "'deny  10.0.0.0/33': an IPv4 prefix length is 0 to 32."),
        (
            3,
            "invalid",
            "'allow 10.0.0.1:80': a port has no place in a rule, which judges addresses alone. Write 10.0.0.1.",
        ),
        (4, "duplicate", "'allow 192.168.0.0/16': line 2 holds it already. Delete one of them."),
        (
            6,
            "masked",
            "'allow 10.0.0.9/8': bits to the right of the prefix are set and do not count: it means allow 10.0.0.0/8.",
        ),
        (6, "shadowed", "'allow 10.2.0.0/16': it never decides, because line 6 matches every peer first. Delete it."),
        (
            7,
            "shadowed",
            "'deny 10.1.0.0/16': it never decides, because line 6 matches every peer first. Move it up, or delete it.",
        ),
    ]


def test_a_text_without_flaws_has_no_findings() -> None:
    assert lint("allow 10.0.0.1; deny 10.0.0.0/8; allow unix:;\ndeny all;") == []
    assert lint("") == []


def test_a_finding_names_the_rules_that_it_is_about() -> None:
    *_, finding = lint("deny 10.0.0.0/8;\nallow ::1;\nallow 10.1.0.0/16;")
    assert finding == Finding(
        3,
        "allow 10.1.0.0/16",
        Flaw.SHADOWED,
        "it never decides, because line 1 matches every peer first",
        "Move it up, or delete it.",
        (RuleAt(1, Rule.parse("deny 10.0.0.0/8")),),
    )
    (duplicate,) = lint("deny all;\ndeny all;")
    assert duplicate.others == (RuleAt(1, Rule.parse("deny all")),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deny 10.0.0.1; deny 10.0.0.0/8; allow 10.0.0.0/16", {"allow 10.0.0.0/16": ["deny 10.0.0.0/8"]}),
        (
            "allow all; deny 10.0.0.0/8; deny 10.0.0.1",
            {"deny 10.0.0.0/8": ["allow all"], "deny 10.0.0.1": ["allow all"]},
        ),
        ("allow all; deny unix:; deny all", {"deny unix:": ["allow all"], "deny all": ["allow all"]}),
        ("deny unix:; allow unix:", {"allow unix:": ["deny unix:"]}),
        (
            "allow 10.0.0.0/9; allow 11.0.0.0/8; allow 10.128.0.0/9; deny 10.0.0.0/8",
            {"deny 10.0.0.0/8": ["allow 10.0.0.0/9", "allow 10.128.0.0/9"]},
        ),
        (
            "allow ::/1; deny 8000::/1; deny ::/0; allow 0.0.0.0/0; deny unix:; allow all",
            {
                "deny ::/0": ["allow ::/1", "deny 8000::/1"],
                "allow all": ["allow ::/1", "deny 8000::/1", "allow 0.0.0.0/0", "deny unix:"],
            },
        ),
        ("deny ::fffe:0:0/96; allow ::fffe:0:0/95", {"allow ::fffe:0:0/95": ["deny ::fffe:0:0/96"]}),
    ],
)
def test_a_shadowed_rule_comes_with_the_one_rule_that_hides_it_or_all_that_do_so_together(
    text: str, expected: dict[str, list[str]]
) -> None:
    assert hidden(text) == expected


@pytest.mark.parametrize(
    ("count", "lines"),
    [(2, "lines 1 and 2 together"), (4, "lines 1, 2, 3 and 1 more together"), (8, "lines 1, 2, 3 and 5 more together")],
)
def test_a_message_names_no_more_than_three_of_the_lines_that_hide_a_rule(count: int, lines: str) -> None:
    length = 8 + count.bit_length() - 1
    parts = [Network(4, (10 << 24) + (at << 32 - length), length) for at in range(count)]
    (finding,) = lint("\n".join([*(f"allow {part}" for part in parts), "allow 10.0.0.0/8"]))
    assert lines in finding.reason
    assert len(finding.others) == count
    assert finding.hint == "Delete it."


def test_invalid_and_duplicate_rules_hide_nothing() -> None:
    findings = lint("deny 10.0.0.0/8;\ndeny 0.0.0.0/;\ndeny 10.0.0.0/8;\nallow 10.0.0.0/8; allow 11.0.0.0/8")
    assert [(finding.line, finding.flaw) for finding in findings] == [
        (2, Flaw.INVALID),
        (3, Flaw.DUPLICATE),
        (4, Flaw.SHADOWED),
    ]
    assert findings[-1].others == (RuleAt(1, Rule.parse("deny 10.0.0.0/8")),)


def test_what_is_not_text_is_an_error() -> None:
    with pytest.raises(InvalidRule, match="Decode bytes"):
        lint(b"deny all")  # type: ignore[arg-type]


targets = st.one_of(
    st.sampled_from(list(Scope)),
    st.builds(
        lambda top, length: Network(4, top >> 4 - length << 32 - length, length), st.integers(0, 15), st.integers(0, 4)
    ),
    st.builds(
        lambda top, length: Network(6, top >> 4 - length << 84 - length, 44 + length),
        st.integers(0, 15),
        st.integers(0, 4),
    ),
)
rules = st.builds(Rule, st.sampled_from(["allow", "deny"]), targets)


@given(st.lists(rules, max_size=25, unique=True))
def test_the_shadowed_rules_are_those_of_the_list_and_their_hiders_alone_hide_them(given: list[Rule]) -> None:
    text = "\n".join(map(str, given))
    findings = lint(text)
    assert [given[finding.line - 1] for finding in findings] == AccessList(given).shadowed()
    for finding in findings:
        rule = given[finding.line - 1]
        assert all(other.line < finding.line and given[other.line - 1] == other.rule for other in finding.others)
        assert AccessList([*(other.rule for other in finding.others), rule]).shadowed() == [rule]


@given(st.text(alphabet="allow deny10./8:#;\n\tunix", max_size=60))
def test_a_text_is_read_where_there_is_neither_an_invalid_nor_a_duplicate_rule(text: str) -> None:
    flaws = [finding for finding in lint(text) if finding.flaw in {Flaw.INVALID, Flaw.DUPLICATE}]
    with pytest.raises(CidrError) if flaws else nullcontext() as raised:
        AccessList.parse(text)
    if flaws:
        assert raised is not None
        assert raised.value.line == flaws[0].line


def test_ten_thousand_rules_that_are_hidden_by_two_each_are_found_without_looking_at_all_for_each() -> None:
    chance = random.Random(5)
    tops = chance.sample(range(1 << 16), 10_000)
    halves = [f"allow {Network(4, top << 16 | half << 15, 17)}" for top in tops for half in (0, 1)]
    findings = lint("\n".join([*halves, *(f"deny {Network(4, top << 16, 16)}" for top in tops)]))
    assert [len(finding.others) for finding in findings] == [2] * 10_000
