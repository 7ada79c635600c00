"""`esockd reload`: a running instance reads its configuration file again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import Instance, speaks

if TYPE_CHECKING:
    from esockd_core import ControlClient

EXAMPLES = {"reload": "--dry-run"}


@speaks
def reload_command(
    output: Output,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, and say what each change would take.")
    ] = False,
    instance: Instance = None,
) -> int:
    """Read the configuration of an instance again: all of it is put in force, or nothing.

    The status is 1 where the file is refused, and 5 where a change takes a restart.
    """
    from esockd_cli._asking import ask, ask_program  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415

    async def reload(client: ControlClient) -> Any:
        return await ask_program(client, "plan_reload" if dry_run else "reload")

    answer = ask(reload, instance, is_change=not dry_run)
    outcome, problems, lines = answer["outcome"], answer["problems"], answer["lines"]
    shown = None if not lines else "\n".join(map(clean, lines))
    output.data(shown, outcome=outcome, file=answer["file"], dry_run=dry_run, steps=answer["steps"], problems=problems)
    if outcome == "refused":
        if not output.as_json:
            for problem in problems:
                place = problem["file"] if problem["line"] is None else f"{problem['file']}:{problem['line']}"
                output.error(
                    CommandError(
                        f"{place}: {problem['message']}",
                        code=problem["code"],
                        status=ExitCode.FAILED,
                        hint=problem["hint"],
                    )
                )
        return ExitCode.FAILED
    if outcome == "restart":
        raise CommandError(
            f"{answer['file']}: [esockd] takes a restart; nothing was changed.",
            code="needs_restart",
            status=ExitCode.DENIED,
            hint=answer.get("hint"),
        )
    if outcome == "unchanged":
        output.note(f"{answer['file']} changes nothing")
    elif dry_run:
        output.note("nothing was changed: this was a dry run")
    return ExitCode.OK
