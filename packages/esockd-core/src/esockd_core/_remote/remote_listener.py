"""A listener of another process."""

# mypy: disable-error-code="no-any-return"
# The table of methods is made of the same signatures, and checks every answer by them.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esockd_core._address import parse_address
from esockd_core._errors import InvalidOption
from esockd_core._remote.errors import ControlError
from esockd_core._remote.methods import METHODS, WAITS
from esockd_core._remote.values import argument_to_json
from esockd_core.control.interface import REHEARSAL_TIME, UNSET, ListenerControl, Unset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esockd_core._address import AddressLike
    from esockd_core._admission.explain import Explanation
    from esockd_core._options.changes import OptionPlan
    from esockd_core._remote.channel import Channel
    from esockd_core._stats.counters import Refusal, Stats
    from esockd_core._stats.top_sources import TopSource
    from esockd_core.control.rehearsal import RehearsalReport
    from esockd_core.control.values import (
        Acceptor,
        ConnectionInfo,
        ConnectionPage,
        ListenerStatus,
        OptionsView,
        RuleDecision,
        RulesView,
    )


class RemoteListener(ListenerControl):
    """Inspects and changes a listener over a control connection. Each method is as in `ListenerControl`.

    Args:
        channel: The channel to its process.
        name: Its name.
        address: Its address; None if only one listener has the name.
    """

    def __init__(self, channel: Channel, name: str, address: str | None) -> None:
        self._channel = channel
        self._name = name
        self._address = address

    def __repr__(self) -> str:
        return f"<RemoteListener {self._name}{'' if self._address is None else f' on {self._address}'}>"

    async def _ask(self, method: str, **arguments: Any) -> Any:
        params = {name: argument_to_json(name, each) for name, each in arguments.items() if each is not UNSET}
        return await self._request(method, params)

    async def _ask_with_options(self, method: str, name: str, options: Mapping[str, Any], **arguments: Any) -> Any:
        given = {each: argument_to_json(each, value) for each, value in options.items()}
        return await self._request(method, {**arguments, name: given})

    async def _request(self, method: str, params: Mapping[str, Any]) -> Any:
        target = (
            {"listener": self._name} if self._address is None else {"listener": self._name, "address": self._address}
        )
        result = await self._channel.request(method, params, waits=method in WAITS, **target)
        try:
            return METHODS[method].read_result(result)
        except ValueError as error:
            raise ControlError(f"the answer to {method} cannot be read: {error}", code="bad_answer") from error

    async def get_status(self) -> ListenerStatus:
        return await self._ask("get_status")

    async def get_stats(self) -> Stats:
        return await self._ask("get_stats")

    async def get_options(self) -> OptionsView:
        return await self._ask("get_options")

    async def get_acceptors(self) -> tuple[Acceptor, ...]:
        return await self._ask("get_acceptors")

    async def get_refusals(self) -> tuple[Refusal, ...]:
        return await self._ask("get_refusals")

    async def get_top_sources(self, most: int = 10) -> tuple[TopSource, ...]:
        return await self._ask("get_top_sources", most=most)

    async def explain(self, address: str, proxy: str | None = None) -> Explanation:
        return await self._ask("explain", address=address, proxy=proxy)

    async def plan_options(self, **changes: Any) -> OptionPlan:
        return await self._ask_with_options("plan_options", "changes", changes)

    async def set_options(self, *, reopen: bool = False, **changes: Any) -> OptionPlan:
        return await self._ask_with_options("set_options", "changes", changes, reopen=reopen)

    async def reset_options(self, *, reopen: bool = False, **options: Any) -> OptionPlan:
        return await self._ask_with_options("reset_options", "options", options, reopen=reopen)

    async def set_tls(self) -> None:
        await self._ask("set_tls")

    async def set_handler(self, handler: str) -> None:
        given: object = handler
        if not isinstance(given, str):
            raise InvalidOption(
                'it takes a place such as "package.module:name", because the listener is in another process',
                option="handler",
                value=given,
            )
        await self._ask("set_handler", handler=handler)

    async def get_access_rules(self) -> RulesView:
        return await self._ask("get_access_rules")

    async def allow(self, network: str) -> None:
        await self._ask("allow", network=network)

    async def deny(self, network: str) -> None:
        await self._ask("deny", network=network)

    async def insert_rule(self, index: int, rule: str) -> None:
        await self._ask("insert_rule", index=index, rule=rule)

    async def remove_rule(self, rule: str) -> None:
        await self._ask("remove_rule", rule=rule)

    async def replace_rules(self, *rules: str) -> None:
        await self._ask("replace_rules", rules=rules)

    async def test_rules(self, address: str) -> RuleDecision:
        return await self._ask("test_rules", address=address)

    async def rehearse(self, *rules: str, duration: float = REHEARSAL_TIME, **changes: Any) -> RehearsalReport:
        given = argument_to_json("rules", rules)
        return await self._ask_with_options("rehearse", "changes", changes, rules=given, duration=duration)

    async def get_rehearsal(self) -> RehearsalReport | None:
        return await self._ask("get_rehearsal")

    async def commit_rehearsal(self) -> RehearsalReport:
        return await self._ask("commit_rehearsal")

    async def cancel_rehearsal(self) -> RehearsalReport:
        return await self._ask("cancel_rehearsal")

    async def list_connections(self, network: str | None = None, *, after: int = 0, limit: int = 100) -> ConnectionPage:
        return await self._ask("list_connections", network=network, after=after, limit=limit)

    async def find_connection(self, connection_id: int) -> ConnectionInfo | None:
        return await self._ask("find_connection", connection_id=connection_id)

    async def kill_connection(self, connection_id: int) -> bool:
        return await self._ask("kill_connection", connection_id=connection_id)

    async def kill_connections(self, network: str) -> int:
        return await self._ask("kill_connections", network=network)

    async def suspend(self) -> None:
        await self._ask("suspend")

    async def resume(self) -> None:
        await self._ask("resume")

    async def reopen(self, address: AddressLike | None = None) -> None:
        await self._ask("reopen", address=address)
        if address is not None and self._address is not None:
            self._address = str(parse_address(address))

    async def drain(self, timeout: float | Unset | None = UNSET, rate: float | None = None) -> None:
        await self._ask("drain", timeout=timeout, rate=rate)

    async def close(self) -> None:
        await self._ask("close")

    async def kill(self) -> None:
        await self._ask("kill")

    async def wait_closed(self) -> None:
        await self._ask("wait_closed")
