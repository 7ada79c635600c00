"""Many rules at once: from a program, or from a whole text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_cidr._errors import DuplicateRule, InvalidRule
from esockd_cidr._rule import Rule, RuleLike, parse_rule, to_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def distinct(rules: Iterable[RuleLike]) -> list[Rule]:
    """The rules that a program gives, each once.

    Raises:
        InvalidRule: If one of them is not a rule, or they are one text.
        DuplicateRule: If a rule appears twice with the same action.
    """
    if isinstance(rules, str):
        hint = "Read one text of many rules with AccessList.parse."
        raise InvalidRule("it takes a list of texts, pairs or Rules", option="rules", value=rules, hint=hint)
    fresh: dict[Rule, None] = {}
    for given in rules:
        rule = to_rule(given)
        if rule in fresh:
            raise duplicate(rule)
        fresh[rule] = None
    return list(fresh)


def duplicate(rule: Rule, line: int | None = None) -> DuplicateRule:
    """The error for a rule that is there already."""
    hint = "Remove that one first to move it."
    return DuplicateRule("the list holds it already", option="rule", value=rule, hint=hint, line=line)


def parse_rules(text: str) -> list[Rule]:
    """The rules of a whole text, each once.

    Raises:
        InvalidRule: If one of them is not a rule; the error names its line.
        DuplicateRule: If a rule appears twice with the same action; the error names the second line.
    """
    rules: dict[Rule, None] = {}
    for line, words in split_rules(text):
        rule = parse_rule(words, words, line)
        if rule in rules:
            raise duplicate(rule, line)
        rules[rule] = None
    return list(rules)


def split_rules(text: str) -> Iterator[tuple[int, str]]:
    """Cut a whole text into the texts of its rules: yield each with the number of its line, from 1.

    A rule ends with a semicolon or with its line; `#` begins a comment; empty lines mean nothing.

    Raises:
        InvalidRule: If it is not text.
    """
    if not isinstance(text, str):
        raise InvalidRule(f"it takes text, not {type(text).__name__}", option="text", value=text, hint="Decode bytes.")
    for number, line in enumerate(text.split("\n"), start=1):
        *ended, rest = line.partition("#")[0].split(";")
        words = [part.strip(" \t\r") for part in ended]
        if rest := rest.strip(" \t\r"):
            words.append(rest)
        for word in words:
            yield number, word
