"""`esockd check`: what is wrong with a configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import speaks

if TYPE_CHECKING:
    from esockd_cli.config.problems import Problem

EXAMPLES = {"check": "edge.toml --bind"}


@speaks
def check_command(
    output: Output,
    *,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The file, in TOML.")],
    bind: Annotated[
        bool, typer.Option("--bind", help="Open every address for a moment too; nobody is let in meanwhile.")
    ] = False,
) -> int:
    """Say everything that is wrong with a configuration, and run nothing.

    Handlers are imported, and certificates are read. The status is 1 where something is wrong.
    """
    import logging  # noqa: PLC0415

    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._logs import set_up_logs  # noqa: PLC0415
    from esockd_cli.config.problems import BadConfig  # noqa: PLC0415
    from esockd_cli.config.read import read_config  # noqa: PLC0415

    set_up_logs(output)
    problems: list[Problem] = []
    doubts: tuple[str, ...] = ()
    listeners: list[dict[str, object]] = []
    try:
        read = read_config(config)
        doubts = read.doubts
        listeners = [{"listener": each.name, "address": str(each.address)} for each in read.openings]
        if bind:
            from esockd_cli.config.binding import try_addresses  # noqa: PLC0415

            problems = try_addresses(read)
    except BadConfig as error:
        problems = error.problems
    if output.as_json:
        output.data(
            None,
            file=config,
            valid=not problems,
            listeners=listeners,
            problems=[problem.fields() for problem in problems],
            warnings=[*doubts],
        )
        return ExitCode.FAILED if problems else ExitCode.OK
    for problem in problems:
        output.error(problem.error())
    for doubt in doubts:
        logging.getLogger("esockd_cli").warning("%s: %s", config, doubt)
    if problems:
        return ExitCode.FAILED
    names = len({each["listener"] for each in listeners})
    addresses = "" if len(listeners) == names else f" on {len(listeners)} addresses"
    output.data(f"{config} is valid: {names} listener{'s'[: names != 1]}{addresses}")
    return ExitCode.OK
