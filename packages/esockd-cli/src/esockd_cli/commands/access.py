"""`esockd allow`, `esockd deny` and `esockd rules`: live access rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._completion import complete_listener
from esockd_cli._output import Output
from esockd_cli._parameters import LISTENER_HELP, Instance, Listener, speaks

if TYPE_CHECKING:
    from esockd_cli._asking import Asked
    from esockd_core import RuleDecision, RulesView

EXAMPLES = {
    "allow": "echo 10.0.0.0/8",
    "deny": "echo 203.0.113.0/24",
    "rules list": "echo",
    "rules insert": "echo 0 deny 203.0.113.0/24",
    "rules remove": "echo deny 203.0.113.0/24",
    "rules replace": "echo allow 10.0.0.0/8 deny all",
    "rules test": "echo 10.1.2.3",
}
CIDR_HELP = f"An address, a CIDR such as 2001:db8::/32, or all. {LISTENER_HELP}"
RULE_HELP = f"A rule is allow or deny and an address, a CIDR or all. {LISTENER_HELP}"


@speaks
def allow_command(
    output: Output,
    *,
    words: Annotated[
        list[str], typer.Argument(metavar="[LISTENER] CIDR|all", help=CIDR_HELP, autocompletion=complete_listener)
    ],
    instance: Instance = None,
) -> int:
    """Let clients in, by a rule before all others."""
    return _put_first("allow", words, instance, output)


@speaks
def deny_command(
    output: Output,
    *,
    words: Annotated[
        list[str], typer.Argument(metavar="[LISTENER] CIDR|all", help=CIDR_HELP, autocompletion=complete_listener)
    ],
    instance: Instance = None,
) -> int:
    """Keep clients out, by a rule before all others.

    Their open connections stay; esockd connections kill closes them.
    """
    return _put_first("deny", words, instance, output)


def _put_first(action: str, words: list[str], instance: str | None, output: Output) -> int:
    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._values import parse_rule  # noqa: PLC0415

    listener, (network,) = split_words(words, "CIDR|all")
    rule = parse_rule(action, network)

    async def put(asked: Asked) -> tuple[Asked, int]:
        await require_absent(asked, rule)
        await (asked.control.deny if action == "deny" else asked.control.allow)(network)
        if action == "allow":
            return asked, 0
        page = await asked.control.list_connections(network, limit=1000)
        return asked, len(page.connections)

    asked, still_open = ask_listener(put, listener, instance, is_change=True)
    output.data(None, **asked.fields, rule=rule, index=0, still_open=still_open)
    output.note(f'{asked.name}: "{rule}" is the first rule now')
    if still_open:
        many = (
            f"{still_open} connection{'s stay' if still_open > 1 else ' stays'}" if still_open < 1000 else "many stay"
        )
        output.note(f"{many} open: esockd connections kill {asked.name} {network}")
    return ExitCode.OK


async def require_absent(asked: Asked, rule: str) -> None:
    """See that a rule is not there yet.

    Raises:
        CommandError: It is.
    """
    from esockd_cidr import Rule  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415

    rules = (await asked.control.get_access_rules()).rules
    if (known := str(Rule.parse(rule))) in rules:
        raise CommandError(
            f'{asked.name} has the rule "{known}" already, at {rules.index(known)}.',
            code="rule_exists",
            status=ExitCode.FAILED,
            hint=f"Remove it first: esockd rules remove {asked.name} {known}",
        )


@speaks
def rules_list_command(
    output: Output,
    *,
    listener: Listener = None,
    instance: Instance = None,
) -> int:
    """List the access rules of a listener in their order; the first that matches decides."""
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    async def look(asked: Asked) -> tuple[RulesView, Asked]:
        return await asked.control.get_access_rules(), asked

    view, asked = ask_listener(look, listener, instance)
    lines = [f"{index:>3}  {rule}" for index, rule in enumerate(view.rules)]
    output.data("\n".join([*lines, f"  -  {view.default} whoever matches none"]), **asked.fields, **view.as_dict())
    return ExitCode.OK


@speaks
def rules_insert_command(
    output: Output,
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LISTENER] INDEX RULE",
            help=f"INDEX counts from 0. {RULE_HELP}",
            autocompletion=complete_listener,
        ),
    ],
    instance: Instance = None,
) -> int:
    """Put an access rule at a position."""
    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode, UsageError  # noqa: PLC0415
    from esockd_cli._rule_words import split_rules  # noqa: PLC0415

    before, rules = split_rules(words)
    listener, (index,) = split_words(before, "INDEX")
    if len(rules) != 1:
        raise UsageError("it takes [LISTENER] INDEX RULE, with one rule.")
    if not (index.isascii() and index.isdecimal()):
        raise UsageError(f'bad index "{index}": it takes a whole number, 0 or more.')

    async def put(asked: Asked) -> Asked:
        await require_absent(asked, rules[0])
        if int(index) > (count := len((await asked.control.get_access_rules()).rules)):
            raise CommandError(
                f"{asked.name} has {count} rule{'s'[: count != 1]}: a position is 0 to {count}.",
                code="bad_index",
                status=ExitCode.FAILED,
            )
        await asked.control.insert_rule(int(index), rules[0])
        return asked

    asked = ask_listener(put, listener, instance, is_change=True)
    output.data(None, **asked.fields, rule=rules[0], index=int(index))
    output.note(f'{asked.name}: "{rules[0]}" is rule {index} now')
    return ExitCode.OK


@speaks
def rules_remove_command(
    output: Output,
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LISTENER] RULE|INDEX",
            help=f"INDEX is as esockd rules list shows it. {RULE_HELP}",
            autocompletion=complete_listener,
        ),
    ],
    instance: Instance = None,
) -> int:
    """Take an access rule out."""
    from esockd_cidr import Rule  # noqa: PLC0415
    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode, UsageError  # noqa: PLC0415
    from esockd_cli._rule_words import split_rules  # noqa: PLC0415

    before, rules = split_rules(words)
    if len(rules) > 1:
        raise UsageError("it takes [LISTENER] RULE, with one rule.")
    listener, rest = split_words(before) if rules else split_words(before, "RULE|INDEX")
    text = str(Rule.parse(rules[0])) if rules else rest[0]
    if not rules and not (text.isascii() and text.isdecimal()):
        raise UsageError(f'bad rule "{text}": it takes allow or deny and a network, or the index of a rule.')

    async def remove(asked: Asked) -> tuple[str, Asked]:
        known = (await asked.control.get_access_rules()).rules
        rule = text if rules else known[int(text)] if int(text) < len(known) else ""
        if rule not in known:
            what = f'rule "{text}"' if rules else f"rule {text}"
            raise CommandError(f"{asked.name} has no {what}.", code="no_rule", status=ExitCode.FAILED)
        await asked.control.remove_rule(rule)
        return rule, asked

    removed, asked = ask_listener(remove, listener, instance, is_change=True)
    output.data(None, **asked.fields, rule=removed)
    output.note(f'{asked.name}: "{removed}" is removed')
    return ExitCode.OK


@speaks
def rules_replace_command(
    output: Output,
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LISTENER] RULE...|-",
            help=f"The new rules, or - for one on each line of stdin. {RULE_HELP}",
            autocompletion=complete_listener,
        ),
    ],
    instance: Instance = None,
) -> int:
    """Exchange all access rules at once."""
    import sys  # noqa: PLC0415

    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._errors import ExitCode, UsageError  # noqa: PLC0415
    from esockd_cli._rule_words import read_rules, split_rules  # noqa: PLC0415

    if words[-1] == "-":
        (listener, _), rules = split_words(words[:-1]), read_rules(sys.stdin, "stdin")
    else:
        before, rules = split_rules(words)
        if not rules:
            raise UsageError("it takes rules, such as: allow 10.0.0.0/8 deny all", hint="Or - to read them from stdin.")
        listener, _ = split_words(before)

    async def replace(asked: Asked) -> Asked:
        await asked.control.replace_rules(*rules)
        return asked

    asked = ask_listener(replace, listener, instance, is_change=True)
    output.data(None, **asked.fields, rules=rules)
    output.note(f"{asked.name}: {len(rules)} rule{'s'[: len(rules) != 1]} in force now")
    return ExitCode.OK


@speaks
def rules_test_command(
    output: Output,
    *,
    words: Annotated[
        list[str], typer.Argument(metavar="[LISTENER] ADDRESS", help=LISTENER_HELP, autocompletion=complete_listener)
    ],
    instance: Instance = None,
) -> int:
    """Say what the access rules decide about an address, and which of them.

    The status is 1 where they deny it.
    """
    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    listener, (address,) = split_words(words, "ADDRESS")

    async def look(asked: Asked) -> tuple[RuleDecision, Asked]:
        return await asked.control.test_rules(address), asked

    decision, asked = ask_listener(look, listener, instance)
    why = "no rule matches" if decision.rule is None else f'rule {decision.index} is "{decision.rule}"'
    output.data(f"{address}: {decision.action}: {why}", **asked.fields, client=address, **decision.as_dict())
    return ExitCode.OK if decision.action == "allow" else ExitCode.FAILED
