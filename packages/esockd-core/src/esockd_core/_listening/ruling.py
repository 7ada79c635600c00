"""The part of a listener that changes its access rules and ends connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint

from esockd_core._errors import InvalidOption
from esockd_core._listening.audited import audited
from esockd_core._listening.inspected import Inspected, wrong_is_invalid
from esockd_core._listening.looking import find_connections

if TYPE_CHECKING:
    from esockd_cidr import RuleLike

KILL_CHUNK: Final = 256  # connections killed before the event loop gets its turn


class Ruling(Inspected):
    """Says who may come in, and who may stay."""

    @audited
    async def allow(self, network: str) -> None:
        """Let clients of a network in."""
        with wrong_is_invalid("network", network):
            self._access.prepend(("allow", network))

    @audited
    async def deny(self, network: str) -> None:
        """Keep clients of a network out."""
        with wrong_is_invalid("network", network):
            self._access.prepend(("deny", network))

    @audited
    async def insert_rule(self, index: int, rule: RuleLike) -> None:
        """Put a rule at a position."""
        if not 0 <= index <= len(self._access):
            raise InvalidOption(f"it takes a position from 0 to {len(self._access)}", option="index", value=index)
        with wrong_is_invalid("rule", rule):
            self._access.insert(index, rule)

    @audited
    async def remove_rule(self, rule: RuleLike) -> None:
        """Take a rule out."""
        with wrong_is_invalid("rule", rule):
            self._access.remove(rule)

    @audited
    async def replace_rules(self, *rules: RuleLike) -> None:
        """Exchange all rules."""
        with wrong_is_invalid("rules", rules):
            self._access.replace(rules)

    @audited
    async def kill_connection(self, connection_id: int) -> bool:
        """Close a connection at once."""
        found = self._site.registry.find(connection_id)
        if found is None:
            return False
        found.kill()
        return True

    @audited
    async def kill_connections(self, network: str) -> int:
        """Close the connections of clients within a network at once."""
        killed = 0
        for connection in find_connections(self._site.registry, network):
            connection.kill()
            killed += 1
            if killed % KILL_CHUNK == 0:
                await checkpoint()
        return killed
