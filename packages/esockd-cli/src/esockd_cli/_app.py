"""The parser of all commands, and its errors in the words of this command."""

from __future__ import annotations

from typing import Annotated

import typer

from esockd_cli._errors import ExitCode, UsageError
from esockd_cli._open import open_command
from esockd_cli._parameters import OrderedRulesCommand
from esockd_cli._version import print_version

PROGRAM = "esockd"

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print_version()
        raise typer.Exit


@app.callback()
def _esockd(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run and inspect hardened socket listeners."""


app.command("open", cls=OrderedRulesCommand, no_args_is_help=True)(open_command)


def run_app(arguments: list[str]) -> int:
    """Parse a command line and run its command.

    Raises:
        CommandError: The command line is wrong, or the command failed.
    """
    try:
        status = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        raise _usage_error(error) from None
    return status if isinstance(status, int) else ExitCode.OK


def _usage_error(error: typer.TyperException) -> UsageError:
    option = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None)
    if option and near:
        return UsageError(f"no such option: {option}.", code="unknown_option", hint=f"Did you mean {near[0]}?")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    message = error.format_message()
    return UsageError(f"{message[:1].lower()}{message[1:].rstrip('.')}.", hint=f"See: {command} --help")
