"""The answers of a program's own limiter and hook, for who may not ask them a second time about one client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_core._admission.denial import HOOK_SAID_NO, NO_TOKEN

if TYPE_CHECKING:
    from esockd_core._options.listener import PeerName
    from esockd_core._stats.counters import Refusal


class Answers:
    """Says what the limiter and the hook have said about the last client; yes if they were not asked.

    Attributes:
        last: The verdict on that client; None if it was let in.
    """

    def __init__(self) -> None:
        self.last: Refusal | None = None

    def try_acquire(self) -> bool:
        """As the limiter."""
        return self.last is None or self.last.reason != NO_TOKEN

    def wait_time(self) -> float:
        """As the limiter."""
        return 0.0

    def load_hook(self, peer: PeerName) -> bool:
        """As the hook."""
        del peer
        return self.last is None or self.last.reason != HOOK_SAID_NO
