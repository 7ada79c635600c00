"""The part of a listener that shows its state, counters, rules and connections."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from anyio.lowlevel import checkpoint

from esockd_cidr import CidrError
from esockd_core._admission.explain import READER, explain
from esockd_core._errors import InvalidOption
from esockd_core._listening.looking import (
    count_bytes,
    count_bytes_in_turns,
    describe_connection,
    page_of_connections,
    snapshot,
    top_sources,
)
from esockd_core._options.plain import plain_options
from esockd_core.control.interface import ListenerControl
from esockd_core.control.values import ListenerStatus, OptionsView, RuleDecision, RulesView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cidr import AccessList
    from esockd_core._address import Address
    from esockd_core._admission.admission import Admission
    from esockd_core._admission.explain import Explanation
    from esockd_core._connection.datagram_face import DatagramConnection
    from esockd_core._connection.face import StreamConnection
    from esockd_core._connection.site import Site
    from esockd_core._listening.intake import Intake
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._stats.counters import Refusal, Stats
    from esockd_core._stats.state import ListenerState
    from esockd_core._stats.top_sources import TopSource
    from esockd_core.control.values import Acceptor, ConnectionInfo, ConnectionPage

TEXT_CHUNK: Final = 4_096  # rules written before the event loop gets its turn: some milliseconds


class Inspected(ListenerControl):
    """Shows a listener."""

    name: str
    address: Address
    _site: Site
    _admission: Admission
    _intake: Intake
    _access: AccessList
    _handler_path: str
    _state: ListenerState
    _opened_at: float | None

    # Looking at it

    def __repr__(self) -> str:
        address = self.address if self.port is None or self.address.port != 0 else replace(self.address, port=self.port)
        count = len(self._site.registry)
        open_ones = "" if self.state in {"new", "closed"} else f", {count} connection{'' if count == 1 else 's'}"
        return f"<{type(self).__name__} {self.name!r} on {address}: {self.state}{open_ones}>"

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
        return self._site.options

    @property
    def access_rules(self) -> AccessList:
        """The live access rules. A change applies from the next client on."""
        return self._access

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that are really bound, one for each socket; empty when not open."""
        return self._intake.addresses

    @property
    def port(self) -> int | None:
        """The real port, the same for all sockets; None for a Unix socket or when not open."""
        return self._intake.port

    @property
    def acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors, one or more for each socket."""
        return self._intake.acceptors

    @property
    def connections(self) -> tuple[StreamConnection | DatagramConnection, ...]:
        """The connections that have passed their entrance and have not ended, in the order of passing."""
        every = self._site.registry.connections.values()
        return tuple(cast("StreamConnection | DatagramConnection", each) for each in every)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets, at most 256, oldest first."""
        return tuple(self._site.counters.refusals)

    def stats(self) -> Stats:
        """A snapshot of every counter."""
        return snapshot(self._site, self._admission, self._intake.queue(), count_bytes(self._site))

    # The part of `ListenerControl` that looks

    async def get_status(self) -> ListenerStatus:
        """Name, state and addresses."""
        return ListenerStatus(
            name=self.name,
            address=str(self.address),
            state=self._state,
            addresses=self.addresses,
            port=self.port,
            opened_at=self._opened_at,
            handler=self._handler_path,
        )

    async def get_stats(self) -> Stats:
        """Every counter."""
        all_bytes = await count_bytes_in_turns(self._site)
        return snapshot(self._site, self._admission, self._intake.queue(), all_bytes)

    async def get_options(self) -> OptionsView:
        """The options in force."""
        rules = await self.get_access_rules()
        texts = rules.rules if rules.default == "allow" else (*rules.rules, "deny all")
        return OptionsView(plain_options(replace(self.options, access_rules=())) | {"access_rules": texts})

    async def get_acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors."""
        return self.acceptors

    async def get_refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets."""
        return self.refusals

    async def get_top_sources(self, most: int = 10) -> tuple[TopSource, ...]:
        """The sources that come most often."""
        return top_sources(self._site, most)

    async def explain(self, address: str, proxy: str | None = None) -> Explanation:
        """Tell what would happen to a client that came now."""
        has_queue = not self.address.is_datagram
        return explain(self._admission, self._state, address, proxy, listens=self._intake.is_open, has_queue=has_queue)

    async def get_access_rules(self) -> RulesView:
        """The access rules."""
        texts: list[str] = []
        default = self._access.default
        for number, rule in enumerate(self._access.rules, start=1):  # as they are now, whatever changes meanwhile
            texts.append(str(rule))
            if number % TEXT_CHUNK == 0:
                await checkpoint()
        return RulesView(tuple(texts), default.value)

    async def test_rules(self, address: str) -> RuleDecision:
        """The decision of the rules about an address."""
        with wrong_is_invalid("address", address):
            READER.allows(address)
        match = self._access.match(address)
        if match is None:
            return RuleDecision(self._access.default.value, None, None)
        return RuleDecision(match.action.value, str(match.rule), match.index)

    async def list_connections(self, network: str | None = None, *, after: int = 0, limit: int = 100) -> ConnectionPage:
        """A page of the open connections."""
        return page_of_connections(self._site.registry, network, after, limit)

    async def find_connection(self, connection_id: int) -> ConnectionInfo | None:
        """The connection with this id."""
        found = self._site.registry.connections.get(connection_id)
        return None if found is None else describe_connection(found)


@contextmanager
def wrong_is_invalid(option: str, value: object) -> Iterator[None]:
    """Turn what `esockd_cidr` says about a value into an `InvalidOption`."""
    try:
        yield
    except CidrError as error:
        raise InvalidOption.because(error, option, value) from error
