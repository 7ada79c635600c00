"""The gate to the backlog: it leaves clients in the kernel's queue until there is room or a token for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from esockd_core._admission.admission import Admission
    from esockd_core._connection.registry import Registry


class Gate:
    """Says when the next client may be taken from the kernel's queue.

    Args:
        admission: Knows about room and tokens.
        registry: Tells when a connection has ended.

    Attributes:
        turn: Held by the acceptor that is taking a client, so that no other takes the place that it has seen free.
    """

    def __init__(self, admission: Admission, registry: Registry) -> None:
        self.admission = admission
        self._registry = registry
        self.turn = anyio.Lock()

    @property
    def leaves_in_backlog(self) -> bool:
        """Whether clients wait in the kernel's queue for room or a token, instead of being refused."""
        return self.admission.waits_for_room or self.admission.waits_for_token

    async def wait_for_turn(self) -> None:
        """Return when the next client may be taken."""
        while delay_s := self.admission.reserve():
            with anyio.move_on_after(delay_s):
                await self._registry.changed()  # room, or the rate, perhaps
