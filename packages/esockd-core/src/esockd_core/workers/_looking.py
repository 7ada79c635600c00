"""What can be seen of a listener that workers serve, put together from what each of them says."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from esockd_cidr import CidrError
from esockd_core._admission.explain import READER
from esockd_core._errors import EsockdError, InvalidOption, ListenerClosed
from esockd_core._listening.looking import check_bound
from esockd_core._options.plain import plain_options
from esockd_core._remote.errors import InstanceUnreachable
from esockd_core._stats.top_sources import KEPT
from esockd_core.control.interface import ListenerControl
from esockd_core.control.values import (
    MAX_PAGE,
    Acceptor,
    ConnectionInfo,
    ConnectionPage,
    OptionsView,
    RuleDecision,
    RulesView,
)
from esockd_core.workers._asking import ASK_S, Asking
from esockd_core.workers._merging import merge_top_sources
from esockd_core.workers._process import IDS_EACH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._address import Address
    from esockd_core._admission.explain import Explanation
    from esockd_core._stats.counters import Refusal, Stats
    from esockd_core._stats.state import ListenerState
    from esockd_core._stats.top_sources import TopSource
    from esockd_core.control.values import ListenerStatus
    from esockd_core.workers._process import WorkerProcess

KEPT_REFUSALS: Final = 256


class Looking(Asking, ListenerControl):
    """The part of `SharedControl` that changes nothing."""

    @property
    def name(self) -> str:
        """Its name."""
        return self._model.name

    @property
    def address(self) -> Address:
        """Where it listens, as it was asked for."""
        return self._model.address

    @property
    def state(self) -> ListenerState:
        """Its state."""
        return self._model.state

    async def get_status(self) -> ListenerStatus:
        """Name, state, addresses and handler."""
        return self._model.status()

    async def get_stats(self) -> Stats:
        """Every counter, over all workers, including those that have ended."""
        number = self._model.number

        async def look(process: WorkerProcess, control: ListenerControl) -> None:
            with anyio.move_on_after(ASK_S):
                with suppress(EsockdError):  # it has just ended
                    stats = await control.get_stats()
                    if process.control(number) is control:  # or the listener was closed meanwhile
                        process.stats[number] = stats

        async with anyio.create_task_group() as task_group:
            for process in self._workers.live():
                if process.state != "slow" and (control := process.control(number)) is not None:
                    task_group.start_soon(look, process, control)
        return self._model.stats(self._workers.live())

    async def get_options(self) -> OptionsView:
        """The options in force."""
        rules = await self.get_access_rules()
        texts = rules.rules if rules.default == "allow" else (*rules.rules, "deny all")
        return OptionsView(plain_options(replace(self._model.options, access_rules=())) | {"access_rules": texts})

    async def get_acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors of all workers."""
        found = [acceptor for answer in await self._ask(lambda each: each.get_acceptors()) for acceptor in answer]
        return tuple(replace(acceptor, id=number) for number, acceptor in enumerate(found))

    async def get_refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets of the workers that there are now."""
        found = [refusal for answer in await self._ask(lambda each: each.get_refusals()) for refusal in answer]
        return tuple(sorted(found, key=lambda refusal: refusal.at)[-KEPT_REFUSALS:])

    async def get_top_sources(self, most: int = 10) -> tuple[TopSource, ...]:
        """The sources that came most often to the workers that there are now."""
        check_bound("most", most, KEPT)
        return merge_top_sources(await self._ask(lambda each: each.get_top_sources(KEPT)), most)

    async def explain(self, address: str, proxy: str | None = None) -> Explanation:
        """Tell what would happen to a client that came now. One worker answers: its limits are those of all."""
        for process in self._workers.live():
            control = process.control(self._model.number)
            if process.state == "running" and control is not None:
                try:
                    with anyio.fail_after(ASK_S):
                        return await control.explain(address, proxy)
                except (InstanceUnreachable, TimeoutError):
                    continue
        raise ListenerClosed(f"listener {self._model.name}: no worker answers")

    async def get_access_rules(self) -> RulesView:
        """The rules in their order, and the decision for an address that none of them matches."""
        access = self._model.access
        return RulesView(tuple(str(rule) for rule in access.rules), access.default.value)

    async def test_rules(self, address: str) -> RuleDecision:
        """The decision of the rules about an address, and the deciding rule."""
        with wrong_is_invalid("address", address):
            READER.allows(address)
        match = self._model.access.match(address)
        if match is None:
            return RuleDecision(self._model.access.default.value, None, None)
        return RuleDecision(match.action.value, str(match.rule), match.index)

    # Connections

    async def list_connections(self, network: str | None = None, *, after: int = 0, limit: int = 100) -> ConnectionPage:
        """A page of the open connections: those of one worker after those of another."""
        check_bound("limit", limit, MAX_PAGE)
        found: list[ConnectionInfo] = []
        for process in self._workers.live():
            control = process.control(self._model.number)
            if control is None or process.first_id + IDS_EACH <= after:
                continue
            if len(found) == limit:
                return ConnectionPage(tuple(found), found[-1].id)
            with anyio.move_on_after(ASK_S), suppress(InstanceUnreachable):
                page = await control.list_connections(network, after=after, limit=limit - len(found))
                found += page.connections
                if page.after is not None:
                    return ConnectionPage(tuple(found), page.after)
        return ConnectionPage(tuple(found), None)

    def _of_connection(self, connection_id: int) -> ListenerControl | None:
        generation = (connection_id - 1) // IDS_EACH
        for process in self._workers.live():
            if process.generation == generation:
                return process.control(self._model.number)
        return None

    async def find_connection(self, connection_id: int) -> ConnectionInfo | None:
        """The connection with this id; None if there is none."""
        control = self._of_connection(connection_id)
        return None if control is None else await control.find_connection(connection_id)


@contextmanager
def wrong_is_invalid(option: str, value: object) -> Iterator[None]:
    """Raise errors of access rules as those of an argument."""
    try:
        yield
    except CidrError as error:
        raise InvalidOption.because(error, option, value) from error
