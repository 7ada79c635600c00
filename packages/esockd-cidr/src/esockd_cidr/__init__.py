"""Ordered allow/deny rules for IP addresses: first match wins, live changes, any size."""

from esockd_cidr._address import Address
from esockd_cidr._errors import (
    CidrError,
    DuplicateRule,
    HitsNotCounted,
    InvalidAddress,
    InvalidPosition,
    InvalidRule,
    UnknownRule,
)
from esockd_cidr._lint import Finding, Flaw, RuleAt, lint
from esockd_cidr._list import AccessList, Match
from esockd_cidr._network import Network, parse_network
from esockd_cidr._rule import Action, Rule, RuleLike, Scope

__all__ = [
    "AccessList",
    "Action",
    "Address",
    "CidrError",
    "DuplicateRule",
    "Finding",
    "Flaw",
    "HitsNotCounted",
    "InvalidAddress",
    "InvalidPosition",
    "InvalidRule",
    "Match",
    "Network",
    "Rule",
    "RuleAt",
    "RuleLike",
    "Scope",
    "UnknownRule",
    "lint",
    "parse_network",
]
