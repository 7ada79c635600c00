"""Sessions that survive a change of their peer's address: whose id a datagram carries, and who may take it over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from esockd_core._options.listener import PeerName
    from esockd_core._stats.log import ListenerLog


class Sessions:
    """The ids of the sessions of a listener, and what the program's functions say about them.

    Args:
        log: The listener's log.

    Attributes:
        owners: Connections by their ids; each id has one owner.
    """

    __slots__ = ("_log", "owners")

    def __init__(self, log: ListenerLog) -> None:
        self._log = log
        self.owners: dict[Hashable, Any] = {}

    def id_in(self, datagram: bytes, read: Callable[[bytes], Hashable | None]) -> Hashable | None:
        """The id that the program reads in a datagram; None if there is none, or if its function fails."""
        try:
            found = read(datagram)
            hash(found)
        except Exception as error:  # noqa: BLE001 - of the program
            self._log.say(logging.ERROR, "session_id failed: %r", error, error=error)
            return None
        return found

    def may_move(
        self, decide: Callable[[Any, bytes, PeerName], bool], owner: object, datagram: bytes, peer: PeerName
    ) -> bool:
        """Whether the program lets a datagram from another address move its session there."""
        try:
            return bool(decide(owner, datagram, peer))
        except Exception as error:  # noqa: BLE001 - of the program
            self._log.say(logging.ERROR, "may_move failed: %r", error, error=error)
            return False
