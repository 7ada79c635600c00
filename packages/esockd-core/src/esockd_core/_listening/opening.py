"""A listener for the duration of a block."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

from esockd_core._listening.listener import Listener
from esockd_core._listening.shelter import sheltered_task_group
from esockd_core._options.changes import merge_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esockd_core._connection.events import ConnectionEvent
    from esockd_core._connection.handler import Handler
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.listener import ListenerOptions


@asynccontextmanager
async def open_listener(
    name: str,
    address: object,
    handler: Handler,
    options: ListenerOptions | None = None,
    *,
    on_event: Callable[[ConnectionEvent], None] | None = None,
    **changes: Unpack[OptionArguments],
) -> AsyncIterator[Listener]:
    """Run a listener for the duration of a block, and close it gracefully at the end.

    So it is closed too when the block raises or is cancelled; `shutdown_timeout` bounds how long that takes.

    Args:
        name: See `Listener`.
        address: See `Listener`.
        handler: See `Listener`.
        options: See `Listener`.
        on_event: See `Listener`.
        changes: Single options by name, on top of `options`.

    Raises:
        InvalidAddress: If the address is not valid.
        InvalidOption: If an option is unknown, out of bounds or does not apply.
        AddressInUse: If somebody else listens there.
        CannotBind: If the address cannot be opened.
    """
    listener = Listener(name, address, handler, merge_options(options, changes), on_event=on_event)
    async with sheltered_task_group() as task_group:
        await task_group.start(listener.run)
        try:
            yield listener
        finally:
            if listener.state != "closed":  # it failed, and what it failed with is about to be raised
                task_group.start_soon(listener.close)
