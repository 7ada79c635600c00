"""What each worker process does before it serves: it sets up its logs, and makes the handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from esockd_cli._errors import CommandError
from esockd_cli._freezing import tune_collector
from esockd_cli._handlers import find_handler
from esockd_cli._listeners import read_forwarder
from esockd_cli._logs import set_up_logs
from esockd_core import ControlError, raise_open_file_limit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from esockd_cli._output import Output
    from esockd_core import Handler

MAKE_HANDLER: Final = f"{__name__}:make_handler"
SET_UP: Final = f"{__name__}:set_up"


def set_up(output: Output) -> None:
    """Write logs as the command does."""
    set_up_logs(output)
    raise_open_file_limit()


def make_handler(text: str, app_dir: Path, called: str, values: Mapping[str, Any], mark: object) -> Handler:
    """Make the handler that a command line or a file names.

    Args:
        text: Its name there.
        app_dir: The folder that user modules are found in.
        called: How this folder is called where it was given.
        values: The values of options that the handler is made with.
        mark: Another one where another handler is to be made.

    Raises:
        ControlError: If there is no such handler, or its module fails; as the command would say it.
    """
    del mark
    try:
        handler = read_forwarder(text, values) or find_handler(text, app_dir, called)[1]
    except CommandError as error:
        raise ControlError(error.message.rstrip("."), code=error.code, hint=error.hint) from error
    tune_collector()
    return handler
