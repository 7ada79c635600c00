"""`esockd rehearse`: what changed rules and limits would do to the clients that really come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from esockd_cli._completion import complete_rehearsal
from esockd_cli._flags import Given, takes_flags
from esockd_cli._output import Output
from esockd_cli._parameters import ACCESS_RULES, LISTENER_HELP, Instance, OrderedRulesCommand, speaks
from esockd_core import REHEARSED, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esockd_cli._asking import Asked
    from esockd_core import RehearsalReport

EXAMPLES = {"rehearse": "echo --deny 203.0.113.0/24 --max-conn-rate 50/s --for 10m"}
VERBS = ("commit", "cancel")
LONGEST = "7d"


class RehearseCommand(OrderedRulesCommand):
    """It takes rules in the order typed."""


@speaks
@takes_flags(REHEARSED)
def rehearse_command(
    output: Output,
    *,
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[commit|cancel] [LISTENER] [KEY=VALUE...]",
            help="KEY=VALUE as esockd set takes it, for options that have no flag here. commit makes a rehearsal live "
            f"as it is, cancel forgets it; with neither and nothing to change, it is shown. {LISTENER_HELP}",
            autocompletion=complete_rehearsal,
        ),
    ] = None,
    allow: Annotated[  # noqa: ARG001 (their order is in the context)
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CIDR",
            help="Put a rule before all others that lets in an address, a CIDR or all; these are in the order typed.",
            rich_help_panel=Topic.ACCESS.value,
        ),
    ] = None,
    deny: Annotated[  # noqa: ARG001
        list[str] | None,
        typer.Option(
            "--deny",
            metavar="CIDR",
            help="Put a rule before all others that keeps out an address, a CIDR or all.",
            rich_help_panel=Topic.ACCESS.value,
        ),
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help=f"How long it lasts, up to {LONGEST}.  [default: 10m]")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Begin it, and do not wait for its end.")] = False,
    instance: Instance = None,
    **flags: Given,
) -> int:
    """Judge every real client by changed rules and limits, refuse nobody, and count whom they would refuse.

    It waits for the end of the rehearsal, shows at a terminal how it goes, and writes the report. Ctrl-C writes it at
    once and leaves the rehearsal going on. When it is over, the report stays until commit, cancel or another rehearsal.
    """
    from esockd_cli._durations import parse_duration  # noqa: PLC0415
    from esockd_cli._errors import UsageError  # noqa: PLC0415

    verb, listener, changes = _read_words(words or [], flags)
    rules = [f"{action} {network}" for action, network in ctx.meta[ACCESS_RULES]]
    if verb is not None:
        if rules or changes or duration is not None or detach:
            raise UsageError(f"{verb} takes a listener and nothing else.")
        return _end(output, verb, listener, instance)
    if rules or changes:
        seconds = parse_duration(duration or "10m", "--for", LONGEST)
        return _begin(output, listener, instance, rules=rules, changes=changes, seconds=seconds, detach=detach)
    if duration is not None or detach:
        raise UsageError("it takes something to change, such as --deny 203.0.113.0/24.", hint="See: esockd rehearse -h")
    return _show(output, listener, instance)


def _read_words(words: Sequence[str], flags: Mapping[str, Given]) -> tuple[str | None, str | None, dict[str, Any]]:
    from esockd_cli._errors import UsageError  # noqa: PLC0415
    from esockd_cli._flags import read_flags  # noqa: PLC0415
    from esockd_cli._settings import read_settings, split_listener  # noqa: PLC0415

    verb = words[0] if words and words[0] in VERBS else None
    listener, texts = split_listener(words if verb is None else words[1:])
    changes = read_settings(texts)
    for name, value in read_flags(flags).items():
        group, _, field = name.rpartition(".")
        place = changes.setdefault(group, {}) if group else changes
        if field in place:
            raise UsageError(f"{name} is given twice.")
        place[field] = value
    return verb, listener, changes


def _begin(
    output: Output,
    listener: str | None,
    instance: str | None,
    *,
    rules: Sequence[str],
    changes: Mapping[str, Any],
    seconds: float,
    detach: bool,
) -> int:
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._following import follow  # noqa: PLC0415
    from esockd_cli._values import parse_rule  # noqa: PLC0415
    from esockd_cli.commands.access import require_absent  # noqa: PLC0415

    for rule in rules:
        parse_rule(*rule.split(maxsplit=1))

    async def begin(asked: Asked) -> tuple[tuple[RehearsalReport, bool], Asked]:
        _require_known(asked)
        for rule in rules:
            await require_absent(asked, rule)
        report = await asked.control.rehearse(*rules, duration=seconds, **changes)
        return (report, True) if detach else await follow(asked, report, output), asked

    (report, is_there), asked = ask_listener(begin, listener, instance, is_change=True)
    _write(output, asked, report, is_new=detach)
    if not is_there:
        output.note(f"{asked.name}: somebody has ended this rehearsal meanwhile")
        return ExitCode.OK
    if report.state == "running":
        output.note(f"{asked.name}: the rehearsal goes on; show it: esockd rehearse {asked.name}")
    _tell_what_next(output, asked)
    return ExitCode.OK


def _show(output: Output, listener: str | None, instance: str | None) -> int:
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415

    async def look(asked: Asked) -> tuple[RehearsalReport | None, Asked]:
        _require_known(asked)
        return await asked.control.get_rehearsal(), asked

    report, asked = ask_listener(look, listener, instance)
    if report is None:
        raise CommandError(
            f"{asked.name} has no rehearsal.",
            code="no_rehearsal",
            status=ExitCode.FAILED,
            hint=f"Begin one: esockd rehearse {asked.name} --deny 203.0.113.0/24 --for 10m",
        )
    _write(output, asked, report)
    _tell_what_next(output, asked)
    return ExitCode.OK


def _end(output: Output, verb: str, listener: str | None, instance: str | None) -> int:
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._rehearsals import describe_option  # noqa: PLC0415

    async def end(asked: Asked) -> tuple[RehearsalReport, Asked]:
        _require_known(asked)
        control = asked.control
        return await (control.commit_rehearsal() if verb == "commit" else control.cancel_rehearsal()), asked

    report, asked = ask_listener(end, listener, instance, is_change=True)
    if verb == "cancel":
        output.data(None, **asked.fields, rehearsal=report.as_dict())
        output.note(f"{asked.name}: the rehearsal is cancelled; nothing was changed")
        return ExitCode.OK
    lines = [f"rule {index}: {rule}" for index, rule in enumerate(report.rules)]
    lines += [clean(describe_option(change)) for change in report.changes]
    output.data("\n".join(lines) if lines else None, **asked.fields, rehearsal=report.as_dict())
    output.note(f"{asked.name}: this is live now; open connections stay")
    return ExitCode.OK


def _write(output: Output, asked: Asked, report: RehearsalReport, *, is_new: bool = False) -> None:
    from esockd_cli._rehearsals import describe_rehearsal  # noqa: PLC0415

    text = None if is_new else describe_rehearsal(asked.name, report)
    output.data(text, **asked.fields, rehearsal=report.as_dict())


def _tell_what_next(output: Output, asked: Asked) -> None:
    output.note(f"make it live: esockd rehearse commit {asked.name}; forget it: esockd rehearse cancel {asked.name}")


def _require_known(asked: Asked) -> None:
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415

    greeting = asked.client.greeting
    if "rehearse" not in greeting.methods:
        raise CommandError(
            f"{greeting.name} runs esockd-core {greeting.version}, which cannot rehearse.",
            code="unknown_method",
            status=ExitCode.FAILED,
            hint="Start it again with the version of this command.",
        )
