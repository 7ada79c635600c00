"""The listeners of a command line or a file, as workers serve them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esockd_cli._worker import MAKE_HANDLER
from esockd_core.workers import WorkerListener

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from esockd_cli._opening import Opening
    from esockd_core import Address, ListenerOptions


def named_listener(
    name: str,
    address: Address,
    options: ListenerOptions,
    handler: str,
    app_dir: Path,
    *,
    called: str,
    values: Mapping[str, Any],
    mark: object = None,
) -> WorkerListener:
    """A listener for `Workers`, with a handler that each worker makes.

    Args:
        name: Its name.
        address: Where it listens.
        options: Its options.
        handler: As for `make_handler`, and so are the others.
        app_dir: The folder that user modules are found in.
        called: How this folder is called where it was given.
        values: The values of options that the handler is made with.
        mark: Another one where another handler is to be made.
    """
    arguments = (handler, app_dir.resolve(), called, values, mark)
    return WorkerListener(
        name=name, address=address, handler=MAKE_HANDLER, handler_arguments=arguments, options=options
    )


def worker_listener(opening: Opening, app_dir: Path) -> WorkerListener:
    """A listener of a configuration file for `Workers`; each worker makes its handler anew."""
    return named_listener(
        opening.name,
        opening.address,
        opening.options,
        opening.handler_text,
        app_dir,
        called="app_dir",
        values=opening.handler_values,
        mark=opening.handler_mark,
    )
