"""Everything wrong or doubtful in a text of rules, where `AccessList.parse` stops at the first error."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from esockd_cidr._errors import InvalidRule
from esockd_cidr._network import MAPPED_FIRST, MAPPED_LAST, WIDTH, Network
from esockd_cidr._order import default_rank
from esockd_cidr._rule import Action, Rule, Scope, parse_rule
from esockd_cidr._rules import split_rules
from esockd_cidr._ruleset import Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES_SHOWN: Final = 3


class Flaw(StrEnum):
    """What can be wrong with a rule in a text."""

    INVALID = "invalid"
    """It is not a rule: `AccessList.parse` refuses the text."""
    DUPLICATE = "duplicate"
    """An earlier line holds it, with the same action: `AccessList.parse` refuses the text."""
    SHADOWED = "shadowed"
    """It never decides, because earlier rules match every peer it matches."""
    MASKED = "masked"
    """Bits to the right of its prefix are set: it means a larger network than its address suggests."""


class RuleAt(NamedTuple):
    """A rule in a text.

    Attributes:
        line: Its line, from 1.
        rule: The rule.
    """

    line: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one rule. Prints as a line for people.

    Attributes:
        line: The line of the rule, from 1.
        text: The rule as written.
        flaw: The kind of finding.
        reason: What is wrong.
        hint: What to do about it, in a sentence; None when the reason says it all.
        others: The rules that hide a shadowed one: the one that does so alone, or else all that do so together. For a
            duplicate, the first of the two.
    """

    line: int
    text: str
    flaw: Flaw
    reason: str
    hint: str | None = None
    others: tuple[RuleAt, ...] = ()

    def __str__(self) -> str:
        return f"line {self.line}: {self.text!r}: {self.reason}.{f' {self.hint}' if self.hint else ''}"


def lint(text: str) -> list[Finding]:
    r"""Find everything wrong or doubtful in a text such as `AccessList.parse` reads.

        >>> for finding in lint("deny 10.0.0.0/8;\nallow 10.0.0.0/33;\ndeny 10.1.0.0/16;"):
        ...     print(finding)
        line 2: 'allow 10.0.0.0/33': an IPv4 prefix length is 0 to 32.
        line 3: 'deny 10.1.0.0/16': it never decides, because line 1 matches every peer first. Delete it.

    Returns:
        The findings in the order of the text; an empty list if nothing is wrong.

    Raises:
        InvalidRule: If it is not text.
    """
    written: list[tuple[RuleAt, str]] = []  # without invalid and duplicate rules
    first: dict[Rule, RuleAt] = {}
    findings: list[Finding] = []
    for line, words in split_rules(text):
        try:
            rule = parse_rule(words, words, line)
        except InvalidRule as error:
            findings.append(Finding(line, words, Flaw.INVALID, error.reason, error.hint))
            continue
        here = RuleAt(line, rule)
        if rule.masked:
            reason = f"bits to the right of the prefix are set and do not count: it means {rule}"
            findings.append(Finding(line, words, Flaw.MASKED, reason))
        if rule in first:
            reason = f"line {first[rule].line} holds it already"
            findings.append(Finding(line, words, Flaw.DUPLICATE, reason, "Delete one of them.", (first[rule],)))
        else:
            first[rule] = here
            written.append((here, words))
    findings.extend(_shadowed(written))
    return sorted(findings, key=lambda finding: finding.line)


def _shadowed(written: list[tuple[RuleAt, str]]) -> Iterator[Finding]:
    rules = [here.rule for here, _ in written]
    hiding = _Hiding(rules)
    for position in hiding.hidden:
        here, words = written[position]
        others = tuple(written[other][0] for other in hiding.hiders(position))
        is_needless = all(other.rule.action == here.rule.action for other in others)
        yield Finding(
            here.line,
            words,
            Flaw.SHADOWED,
            f"it never decides, because {_lines(others)} every peer first",
            "Delete it." if is_needless else "Move it up, or delete it.",
            others,
        )


def _lines(others: tuple[RuleAt, ...]) -> str:
    numbers = [str(other.line) for other in others]
    if len(numbers) == 1:
        return f"line {numbers[0]} matches"
    shown, more = numbers[:LINES_SHOWN], len(numbers) - LINES_SHOWN
    last = f"{more} more" if more > 0 else shown.pop()
    return f"lines {', '.join(shown)} and {last} together match"


class _Hiding:
    """Which rules never decide, and which ones hide them.

    Attributes:
        hidden: The positions of the rules that never decide.
    """

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        ruleset = Ruleset(rules)
        self._find = ruleset.order.find
        self._deciding = ruleset.deciding()
        self.hidden = [at for at, rank in enumerate(ruleset.order.ranks) if rank not in self._deciding]
        self._first_of = {rule.target: at for at, rule in reversed(list(enumerate(rules)))}
        view = ruleset.view(default_rank(Action.DENY))
        self._spans = {4: list(view.v4.spans()), 6: list(view.v6.spans())}

    def hiders(self, position: int) -> list[int]:
        """The positions of the rules that hide the rule at a position: one, or several together."""
        target = self._rules[position].target
        alone = min(self._first_of.get(around, position) for around in _around(target))
        if alone < position:
            return [alone]
        ranks = self._winners(target) if isinstance(target, Network) else self._deciding
        return sorted(self._find(rank)[0] for rank in ranks)

    def _winners(self, network: Network) -> set[int]:
        """The ranks that decide about the peers of a network."""
        spans = self._spans[network.version]
        begin = bisect_right(spans, network.first, key=itemgetter(0)) - 1
        end = bisect_right(spans, network.last, key=itemgetter(0))
        ends = [start for start, _ in spans[begin + 1 : end]] + [network.last + 1]
        return {
            rank
            for (start, rank), behind in zip(spans[begin:end], ends, strict=True)
            if network.version == 4 or start < MAPPED_FIRST or behind > MAPPED_LAST + 1
        }


def _around(target: Network | Scope) -> Iterator[Network | Scope]:
    """Every target of a rule that covers a target, that target included."""
    yield Scope.ALL
    if isinstance(target, Scope):
        yield target
        return
    width = WIDTH[target.version]
    for prefixlen in range(target.prefixlen + 1):
        yield Network(target.version, target.first >> width - prefixlen << width - prefixlen, prefixlen)
