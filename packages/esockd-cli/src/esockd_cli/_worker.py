"""What each worker process of `esockd open --workers` does before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esockd_cli._errors import CommandError
from esockd_cli._freezing import tune_collector
from esockd_cli._handlers import find_handler
from esockd_cli._listeners import read_forwarder
from esockd_cli._logs import set_up_logs
from esockd_core import ControlError, raise_open_file_limit

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_cli._output import Output
    from esockd_core import Handler


def set_up(output: Output) -> None:
    """Write logs as the command does."""
    set_up_logs(output)
    raise_open_file_limit()


def make_handler(text: str, app_dir: Path, values: dict[str, Any]) -> Handler:
    """Make the handler that the command line names.

    Args:
        text: Its name there.
        app_dir: The folder that user modules are found in.
        values: The values of the flags.

    Raises:
        ControlError: If there is no such handler, or its module fails; as the command would say it.
    """
    try:
        handler = read_forwarder(text, values) or find_handler(text, app_dir)[1]
    except CommandError as error:
        raise ControlError(error.message.rstrip("."), code=error.code, hint=error.hint) from error
    tune_collector()
    return handler
