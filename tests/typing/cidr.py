# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Typed usage of esockd_cidr: checked by mypy and pyright, never run."""

from __future__ import annotations

import ipaddress
from typing import assert_type

from esockd_cidr import AccessList, Action, Finding, Match, Rule, RuleAt, lint


def rules_come_as_text_pairs_and_rules() -> None:
    access = AccessList(["deny 10.0.0.1", ("allow", "10.0.0.0/8"), Rule.parse("deny all")], default="deny")
    access.prepend("allow ::1")
    access.append(("deny", "192.0.2.0/24"))
    access.replace(rule for rule in access)
    access.append(80)  # type: ignore[arg-type]


def addresses_come_as_text_bytes_and_objects() -> None:
    access = AccessList.parse("allow 10.0.0.0/8;")
    assert_type(access.allows("10.0.0.1"), bool)
    assert_type(access.allows(b"\x0a\x00\x00\x01"), bool)
    assert_type(access.allows(ipaddress.ip_address("10.0.0.1")), bool)
    assert_type(access.allows(("10.0.0.1", 80)), bool)
    assert_type(access.allows(("::1", 80, 0, 0)), bool)
    assert_type(access.match("10.0.0.1"), Match | None)


def a_match_says_what_decided() -> None:
    match = AccessList().match("10.0.0.1")
    if match is not None:
        assert_type(match.action, Action)
        assert_type(match.rule, Rule)
        assert_type(match.index, int)


def findings_have_lines_and_rules() -> None:
    findings = lint("deny all;")
    assert_type(findings, list[Finding])
    assert_type(findings[0].others, tuple[RuleAt, ...])
    assert_type(findings[0].others[0].rule, Rule)
