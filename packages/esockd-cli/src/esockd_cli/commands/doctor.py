"""`esockd doctor`: what is wrong or doubtful, why it matters, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from esockd_cli._completion import complete_listener
from esockd_cli._output import Output
from esockd_cli._parameters import Instance, speaks

if TYPE_CHECKING:
    from esockd_cli.doctor.checks import Seen
    from esockd_cli.doctor.findings import NotSeen
    from esockd_cli.doctor.patient import Patient

EXAMPLES = {"doctor": "edge.toml"}


@speaks
def doctor_command(
    output: Output,
    *,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|LISTENER",
            help="A configuration file, or a listener as NAME or NAME@ADDRESS; every running instance when not given.",
            autocompletion=complete_listener,
        ),
    ] = None,
    level: Annotated[
        Literal["warning", "error"], typer.Option("--level", help="Leave out what is less than this.")
    ] = "warning",
    instance: Instance = None,
) -> int:
    """Look for what is wrong or doubtful about this machine, running instances, or a configuration.

    Each finding has what was seen, why it matters, and what mends it. The status is 1 where there is any. What cannot
    be looked at is told, and is no finding.
    """
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli.config.problems import BadConfig  # noqa: PLC0415
    from esockd_cli.doctor.checks import examine  # noqa: PLC0415
    from esockd_cli.doctor.gathering import gather  # noqa: PLC0415

    try:
        patient, unanswered = gather(target, instance, output)
    except BadConfig as error:
        for problem in error.problems:
            output.error(problem.error())
        return ExitCode.FAILED
    seen = [*examine(patient)]
    return _tell(output, patient, seen, unanswered, level=level)


def _tell(
    output: Output,
    patient: Patient,
    seen: list[Seen],
    unanswered: list[NotSeen],
    *,
    level: Literal["warning", "error"],
) -> int:
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli.doctor.checks import CHECKS, Seen  # noqa: PLC0415
    from esockd_cli.doctor.findings import Finding  # noqa: PLC0415

    findings = [
        (each.check, each.what)
        for each in seen
        if isinstance(each.what, Finding) and (level == "warning" or each.what.level == "error")
    ]
    blind = [
        (each.check, each.what)
        for each in (*seen, *(Seen("instances", each) for each in unanswered))
        if not isinstance(each.what, Finding)
    ]
    if output.as_json:
        output.data(
            None,
            instances=[each.name for each in patient.processes],
            listeners=[each.name for each in patient.listeners],
            findings=[{"check": check, **what.fields()} for check, what in findings],
            not_checked=[{"check": check, **what.fields()} for check, what in blind],
        )
        return ExitCode.FAILED if findings else ExitCode.OK
    for check, finding in sorted(findings, key=lambda each: each[1].level):
        lines = [
            f"{finding.level}: {finding.subject}: {finding.seen} [{check}]",
            f"  why   {finding.why}",
            f"  mend  {finding.mend}",
        ]
        output.data("\n".join(map(clean, lines)))
    for check, missed in blind:
        output.data(clean(f"not checked: {missed.subject}: {missed.reason} [{check}]"))
    errors = sum(finding.level == "error" for _, finding in findings)
    found = [f"{errors} error{'s'[: errors != 1]}"] if errors else []
    if warnings := len(findings) - errors:
        found.append(f"{warnings} warning{'s'[: warnings != 1]}")
    listeners = len(patient.listeners)
    about = f" and {listeners} listener{'s'[: listeners != 1]}" if listeners else ""
    output.note(f"{len(CHECKS)} checks of this machine{about}: {', '.join(found) or 'nothing found'}")
    return ExitCode.FAILED if findings else ExitCode.OK
