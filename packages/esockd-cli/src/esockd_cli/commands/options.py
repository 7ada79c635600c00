"""`esockd get` and `esockd set`: the options of a running listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._completion import complete_listener_or_option
from esockd_cli._output import Output
from esockd_cli._parameters import LISTENER_HELP, Instance, speaks

if TYPE_CHECKING:
    from esockd_cli._asking import Asked
    from esockd_core import OptionPlan, OptionsView

EXAMPLES = {"get": "echo max_connections tcp", "set": "echo max_connections=5000 idle_timeout=2m --dry-run"}
EFFECTS = {"live": "live", "new connections": "new connections", "reopen": "needs reopen"}


@speaks
def get_command(
    output: Output,
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LISTENER] [KEY...]",
            help=f"An option such as max_connections or tcp.backlog, or a group such as tcp. {LISTENER_HELP}",
            autocompletion=complete_listener_or_option,
        ),
    ] = None,
    instance: Instance = None,
) -> int:
    """Show the options of a listener that are in force, as KEY=VALUE."""
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415
    from esockd_cli._settings import find_options, split_listener, write_value  # noqa: PLC0415

    listener, keys = split_listener(words or [])
    wanted = [name for key in keys for name in find_options(key)]

    async def look(asked: Asked) -> tuple[OptionsView, Asked]:
        return await asked.control.get_options(), asked

    view, asked = ask_listener(look, listener, instance)
    shown = {name: view[name] for name in wanted or view if name in view}
    if wanted and not shown:
        raise CommandError(
            f"{asked.name} has no {', '.join(keys)}: that does not apply to it.",
            code="not_in_force",
            status=ExitCode.FAILED,
        )
    options = view.as_dict()
    output.data(
        "\n".join(f"{name}={clean(write_value(name, value))}" for name, value in shown.items()),
        **asked.fields,
        options={name: options[name] for name in shown},
    )
    return ExitCode.OK


@speaks
def set_command(
    output: Output,
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LISTENER] KEY=VALUE...",
            help=f"Values are written as esockd open takes them, lists with commas. {LISTENER_HELP}",
            autocompletion=complete_listener_or_option,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, and say what each change would take.")
    ] = False,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Open new listening sockets where a change takes that; connections stay.")
    ] = False,
    instance: Instance = None,
) -> int:
    """Change options of a listener, all at once or none; open connections stay.

    Some are live at once, some hold for new connections, and some need new listening sockets, which --reopen allows.
    """
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode, UsageError  # noqa: PLC0415
    from esockd_cli._settings import read_settings, split_listener, write_value  # noqa: PLC0415

    listener, texts = split_listener(words)
    if not texts:
        raise UsageError("it takes KEY=VALUE, such as max_connections=5000.", hint="See what is in force: esockd get")
    changes = read_settings(texts)

    async def change(asked: Asked) -> tuple[OptionPlan, Asked]:
        plan = await asked.control.plan_options(**changes)
        if plan.needs_reopen and not (dry_run or reopen):
            raise CommandError(
                f"{', '.join(plan.needs_reopen)}: this takes new listening sockets; nothing was changed.",
                code="needs_reopen",
                status=ExitCode.DENIED,
                hint="Say --reopen; connections stay open.",
            )
        if not dry_run:
            plan = await asked.control.set_options(reopen=reopen, **changes)
        return plan, asked

    plan, asked = ask_listener(change, listener, instance, is_change=not dry_run)
    lines = [
        clean(
            f"{each.name}: {write_value(each.name, each.old) or '-'} -> {write_value(each.name, each.new) or '-'} "
            f"({EFFECTS.get(each.effect, each.effect)})"
        )
        for each in plan.changes
    ]
    output.data(
        "\n".join(lines) if lines else None,
        **asked.fields,
        dry_run=dry_run,
        changes=[each.as_dict() for each in plan.changes],
        needs_reopen=[*plan.needs_reopen],
    )
    if not lines:
        output.note(f"{asked.name} has these values already")
    elif dry_run:
        output.note("nothing was changed: this was a dry run")
    return ExitCode.OK
