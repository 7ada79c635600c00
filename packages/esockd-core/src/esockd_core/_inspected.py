"""The part of a listener that is looked at: its state, counters, rules and connections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint

from esockd_core._control import ListenerControl
from esockd_core._explain import explain
from esockd_core._inspection import (
    ListenerStatus,
    describe_connection,
    find_connections,
    page_of_connections,
    top_sources,
)

if TYPE_CHECKING:
    from esockd_cidr import AccessList, Match, Rule, RuleLike
    from esockd_core._acceptors import Acceptor
    from esockd_core._address import Address
    from esockd_core._admission import Admission
    from esockd_core._connection import StreamConnection
    from esockd_core._explain import Explanation
    from esockd_core._inspection import ConnectionInfo, ConnectionPage, ListenerState
    from esockd_core._intake import Intake
    from esockd_core._options import ListenerOptions
    from esockd_core._service import Service
    from esockd_core._stats import Refusal, Stats
    from esockd_core._top_sources import TopSource

KILL_CHUNK: Final = 256  # connections killed before the event loop gets its turn


class Inspected(ListenerControl):
    """What a listener tells of itself, and what is changed in its rules and connections; `Listener` has its life."""

    name: str
    address: Address
    _service: Service
    _admission: Admission
    _intake: Intake
    _access: AccessList
    _state: ListenerState
    _opened_at: float | None

    # Looking at it

    @property
    def state(self) -> ListenerState:
        """Where the listener is in its life."""
        return self._state

    @property
    def was_open(self) -> bool:
        """Whether it ever accepted."""
        return self._opened_at is not None

    @property
    def options(self) -> ListenerOptions:
        """The options in force."""
        return self._service.options

    @property
    def access_rules(self) -> AccessList:
        """The live access rules; a change holds for the next client."""
        return self._access

    @property
    def addresses(self) -> tuple[str, ...]:
        """What is really bound, one text a socket; empty before and after."""
        return self._intake.addresses

    @property
    def port(self) -> int | None:
        """The real port, the same for each socket; None for a Unix socket or when not open."""
        return self._intake.port

    @property
    def acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors, one or more for each socket."""
        return self._intake.acceptors

    @property
    def connections(self) -> tuple[StreamConnection, ...]:
        """The connections that have not ended, oldest first."""
        return tuple(self._service.connections.values())

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets, at most 256, oldest first."""
        return tuple(self._service.counters.refusals)

    def stats(self) -> Stats:
        """A snapshot of every counter."""
        return self._service.snapshot(self._intake.queue())

    # The part of `ListenerControl` that looks, and what changes rules and ends connections

    async def get_status(self) -> ListenerStatus:
        """Name, state and addresses."""
        return ListenerStatus(
            name=self.name,
            address=str(self.address),
            state=self._state,
            addresses=self.addresses,
            port=self.port,
            opened_at=self._opened_at,
        )

    async def get_stats(self) -> Stats:
        """Every counter."""
        return self.stats()

    async def get_options(self) -> ListenerOptions:
        """The options in force."""
        return self.options

    async def get_acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors."""
        return tuple(replace(acceptor) for acceptor in self.acceptors)

    async def get_refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets."""
        return self.refusals

    async def get_top_sources(self, most: int = 10) -> tuple[TopSource, ...]:
        """The sources that come most often."""
        return top_sources(self._service, most)

    async def explain(self, address: str, upstream: str | None = None) -> Explanation:
        """What would happen to a client that came now."""
        return explain(self._admission, self._state, address, upstream)

    async def get_access_rules(self) -> tuple[Rule, ...]:
        """The access rules."""
        return self._access.rules

    async def allow(self, network: str) -> None:
        """Let clients of a network in."""
        self._access.prepend(("allow", network))

    async def deny(self, network: str) -> None:
        """Keep clients of a network out."""
        self._access.prepend(("deny", network))

    async def insert_rule(self, index: int, rule: RuleLike) -> None:
        """Put a rule at a position."""
        self._access.insert(index, rule)

    async def remove_rule(self, rule: RuleLike) -> None:
        """Take a rule out."""
        self._access.remove(rule)

    async def replace_rules(self, *rules: RuleLike) -> None:
        """Exchange all rules."""
        self._access.replace(rules)

    async def test_rules(self, address: str) -> Match | None:
        """The rule that decides about an address."""
        return self._access.match(address)

    async def list_connections(self, network: str | None = None, *, after: int = 0, limit: int = 100) -> ConnectionPage:
        """A page of the open connections."""
        return page_of_connections(self._service, network, after, limit)

    async def find_connection(self, connection_id: int) -> ConnectionInfo | None:
        """The connection with this id."""
        found = self._service.connections.get(connection_id)
        return None if found is None else describe_connection(found)

    async def kill_connection(self, connection_id: int) -> bool:
        """Close a connection at once."""
        found = self._service.connections.get(connection_id)
        if found is None:
            return False
        found.kill()
        return True

    async def kill_connections(self, network: str) -> int:
        """Close the connections of clients within a network at once."""
        killed = 0
        for connection in find_connections(self._service, network):
            connection.kill()
            killed += 1
            if killed % KILL_CHUNK == 0:
                await checkpoint()
        return killed
