"""The way in: runs a command line, and turns failures into messages and exit statuses."""

from __future__ import annotations

import errno
import os
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from esockd_cli._descriptors import hold_standard_descriptors
from esockd_cli._early_signals import SERVERS, remember_signals
from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._output import Output

if TYPE_CHECKING:
    from esockd_cli._log_lines import LogForm

LOG_FORMS: Final[tuple[LogForm, ...]] = ("json", "logfmt")


def main() -> None:
    """Run the command line of this process, and exit."""
    if sys.argv[1:2] and sys.argv[1] in SERVERS:
        remember_signals()
    hold_standard_descriptors()
    if "ESOCKD_UPGRADE" in os.environ:
        from esockd_cli._upgrading import run_as_successor  # noqa: PLC0415 - when another program has started this one

        sys.exit(run_as_successor(run_command_line, sys.argv[1:]))
    sys.exit(run_command_line(sys.argv[1:]))


def run_command_line(arguments: list[str]) -> int:
    """Run a command line.

    Args:
        arguments: What follows the program's name.

    Returns:
        The exit status.
    """
    if arguments == ["--version"]:
        from esockd_cli._version import print_version  # noqa: PLC0415 - without the hundred milliseconds of the parser

        print_version()
        return ExitCode.OK
    if arguments[:1] == ["__complete"]:
        from esockd_cli._completing import print_completions  # noqa: PLC0415

        print_completions(arguments[1:])
        return ExitCode.OK
    from esockd_cli._app import run_app  # noqa: PLC0415

    try:
        return run_app(arguments)
    except CommandError as error:
        _output(arguments).error(error)
        return error.status
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a defect of the command is a message too
        failure = _failure(error)
        failure.__cause__ = error
        _output(arguments).error(failure)
        return failure.status


def _failure(error: Exception) -> CommandError:
    if isinstance(error, OSError) and error.errno == errno.EMFILE:  # whatever the file was to be
        hint = "Raise the limit on open files: ulimit -n"
        return CommandError(f"{error.strerror}.", code="too_many_files", status=ExitCode.CANNOT_START, hint=hint)
    message, hint = f"{type(error).__name__}: {error}.", "Say -v for the traceback."
    return CommandError(message, code="internal", status=ExitCode.FAILED, hint=hint)


def _output(arguments: list[str]) -> Output:
    """How to speak of a failure: the parser may not have come as far as these options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    forms: list[LogForm] = [
        form for form in LOG_FORMS if f"--log-format={form}" in options or ("--log-format", form) in pairwise(options)
    ]
    return Output(
        as_json="--json" in options,
        log_form=forms[0] if forms else "auto",
        no_color="--no-color" in options,
        verbose=not {"-v", "--verbose"}.isdisjoint(options),
    )
