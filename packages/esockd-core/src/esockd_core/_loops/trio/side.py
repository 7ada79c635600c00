"""What the connections of one listener use of trio."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

    from esockd_core._loops.trio.poller import CallbackPoller
    from esockd_core._stats.histogram import Histogram


class TrioSide:
    """The nursery in which everything of a listener runs, as connections use it.

    Attributes:
        context: The context variables of the code that opened the listener; its handlers start with them.
        nursery: Runs handlers and flushes.
        poller: Waits for the input of callback connections.
        accept_delays: Notes the delays from admission to the handler's first step.
    """

    __slots__ = ("accept_delays", "context", "nursery", "poller")

    def __init__(self, nursery: trio.Nursery, poller: CallbackPoller, accept_delays: Histogram) -> None:
        self.context = copy_context()
        self.nursery = nursery
        self.poller = poller
        self.accept_delays = accept_delays


def end_program(error: BaseException) -> None:
    """Raise an error that ends the program."""
    raise error
