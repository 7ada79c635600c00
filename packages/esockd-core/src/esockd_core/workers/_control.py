"""One `ListenerControl` for a listener that several workers serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_cidr import AccessList
from esockd_core._errors import InvalidOption
from esockd_core.workers._changing import Changing
from esockd_core.workers._looking import wrong_is_invalid
from esockd_core.workers._model import rule_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_cidr import RuleLike
    from esockd_core.workers._asking import Change


class SharedControl(Changing):
    """Inspects and changes a listener that workers serve.

    A change reaches every worker or none. It is first checked here. If one worker refuses it all the same, those that
    have made it take it back. One that cannot is replaced by a process that never heard of it.

    Args:
        model: What is known of the listener.
        workers: The workers.
    """

    # Access rules

    async def allow(self, network: str) -> None:
        """Let clients of a network in, by a rule before all others."""
        await self._change_rules(
            lambda rules: rules.prepend(("allow", network)), lambda each: each.allow(network), "network", network
        )

    async def deny(self, network: str) -> None:
        """Keep clients of a network out, by a rule before all others."""
        await self._change_rules(
            lambda rules: rules.prepend(("deny", network)), lambda each: each.deny(network), "network", network
        )

    async def insert_rule(self, index: int, rule: RuleLike) -> None:
        """Insert a rule at a position from 0."""
        most = len(self._model.access)
        if not 0 <= index <= most:
            raise InvalidOption(f"it takes a position from 0 to {most}", option="index", value=index)
        await self._change_rules(
            lambda rules: rules.insert(index, rule),
            lambda each: each.insert_rule(index, str(rule)),
            "rule",
            rule,
        )

    async def remove_rule(self, rule: RuleLike) -> None:
        """Remove a rule."""
        await self._change_rules(
            lambda rules: rules.remove(rule), lambda each: each.remove_rule(str(rule)), "rule", rule
        )

    async def replace_rules(self, *rules: RuleLike) -> None:
        """Exchange all rules at once."""
        await self._change_rules(lambda all_of_them: all_of_them.replace(rules), None, "rules", rules)

    async def _change_rules(
        self,
        here: Callable[[AccessList], object],
        change: Change | None,
        option: str,
        value: object,
    ) -> None:
        """Change the rules, everywhere or nowhere; without `change`, workers are told all of the rules."""
        async with self._workers.changing:
            self._require_open()
            access = self._model.access
            new = AccessList(access.rules, default=access.default)  # a process that starts now is told those in force
            with wrong_is_invalid(option, value):
                here(new)
            before, after = rule_texts(access), rule_texts(new)
            await self._tell(
                change or (lambda control: control.replace_rules(*after)),
                lambda control: control.replace_rules(*before),
            )
            access.replace(new.rules, new.default)
            self._model.version += 1

    # Connections

    async def kill_connection(self, connection_id: int) -> bool:
        """Reset a connection and cancel its handler; return whether there was one."""
        control = self._of_connection(connection_id)
        return control is not None and await control.kill_connection(connection_id)

    async def kill_connections(self, network: str) -> int:
        """Kill every connection of a client within a network; return how many."""
        return sum(await self._ask(lambda each: each.kill_connections(network)))
