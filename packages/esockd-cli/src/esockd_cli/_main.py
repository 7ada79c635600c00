"""The way in: runs a command line, and turns failures into messages and exit statuses."""

from __future__ import annotations

import sys

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._output import Output


def main() -> None:
    """Run the command line of this process, and exit."""
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
    from esockd_cli._app import run_app  # noqa: PLC0415

    try:
        return run_app(arguments)
    except CommandError as error:
        _output(arguments).error(error)
        return error.status
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a defect of the command is a message too
        failure = CommandError(
            f"{type(error).__name__}: {error}.",
            code="internal",
            status=ExitCode.FAILED,
            hint="Say -v for the traceback.",
        )
        failure.__cause__ = error
        _output(arguments).error(failure)
        return ExitCode.FAILED


def _output(arguments: list[str]) -> Output:
    """How to speak of a failure: the parser may not have come as far as these options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return Output(
        as_json="--json" in options,
        no_color="--no-color" in options,
        verbose=not {"-v", "--verbose"}.isdisjoint(options),
    )
