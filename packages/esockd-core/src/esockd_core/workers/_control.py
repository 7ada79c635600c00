"""One `ListenerControl` for a listener that several workers serve."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, Unpack

import anyio

from esockd_cidr import AccessList
from esockd_core._errors import EsockdError, InvalidOption
from esockd_core._listening.drain import Ending
from esockd_core._options.changes import merge_options, plan_options
from esockd_core._remote.errors import InstanceUnreachable
from esockd_core._remote.values import argument_to_json
from esockd_core.control.interface import UNSET, Unset
from esockd_core.workers._limits import RATES
from esockd_core.workers._looking import wrong_is_invalid
from esockd_core.workers._model import rule_texts
from esockd_core.workers._process import WorkerProcess
from esockd_core.workers._rehearsing import SharedRehearsing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from esockd_cidr import RuleLike
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.changes import OptionPlan
    from esockd_core._options.listener import ListenerOptions
    from esockd_core.control.interface import ListenerControl
    from esockd_core.workers._asking import Change, Crew
    from esockd_core.workers._model import Model

FORCE_AFTER_S: Final = 4.0  # beyond the time that handlers have: who blocks its event loop for so long is killed

ACCEPTING: Final[Mapping[str, Change]] = {
    "running": lambda control: control.resume(),
    "suspended": lambda control: control.suspend(),
}


class SharedControl(SharedRehearsing):
    """Inspects and changes a listener that workers serve.

    A change reaches every worker or none. It is first checked here. If one worker refuses it all the same, those that
    have made it take it back. One that cannot is replaced by a process that never heard of it.

    Args:
        model: What is known of the listener.
        crew: The workers.
    """

    def __init__(self, model: Model, crew: Crew) -> None:
        super().__init__(model, crew)
        self._ending = Ending(None)
        self._closed = anyio.Event()

    # Options

    async def plan_options(self, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Tell what `set_options` would do."""
        model = self._model
        return plan_options(self._in_force(), model.checked(merge_options(self._in_force(), changes)))

    async def set_options(self, *, reopen: bool = False, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Change single options, everywhere or nowhere."""
        async with self._crew.changing:
            new = merge_options(self._in_force(), changes)
            return await self._change_options(new, lambda control: control.set_options(**changes), reopen=reopen)

    async def reset_options(self, *, reopen: bool = False, **options: Unpack[OptionArguments]) -> OptionPlan:
        """Replace all options, everywhere or nowhere."""
        async with self._crew.changing:
            new = merge_options(None, options)
            return await self._change_options(new, lambda control: control.reset_options(**options), reopen=reopen)

    def _in_force(self) -> ListenerOptions:
        return replace(self._model.options, access_rules=self._model.access)

    async def _change_options(self, new: ListenerOptions, change: Change, *, reopen: bool) -> OptionPlan:
        self._require_open()
        model, old = self._model, self._in_force()
        new = model.checked(new)
        plan = plan_options(old, new)
        if plan.needs_reopen:
            hint = "Start the program anew" if reopen else "Workers keep their sockets as long as the program runs"
            raise InvalidOption(
                "this takes new listening sockets", option=", ".join(plan.needs_reopen), hint=f"{hint}."
            )
        # A bucket that is there keeps its tokens until it is known that the change holds.
        begun = replace(old, **{name: getattr(old, name) or getattr(new, name) for name in RATES})
        await model.put_rates(begun, old)
        undo, told = _put_back(plan, old, rule_texts(model.access)), list[WorkerProcess]()
        try:
            told = await self._tell(change, undo)
            await model.put_rates(new, begun)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._take_back(undo, told)
                await model.put_rates(old, begun)
            raise
        if "access_rules" in plan:
            rules = new.access_list()
            model.access.replace(rules.rules, rules.default)
        model.options = new
        model.version += 1
        self._rehearse_on()
        return plan

    async def set_tls(self) -> None:
        """Read the files of certificates and keys again, everywhere or nowhere."""
        async with self._crew.changing:
            self._require_open()
            if self._model.options.tls is None:
                raise InvalidOption(f"listener {self._model.name} speaks no TLS", option="tls")
            fresh = replace(self._model.options, tls=replace(self._model.options.tls))  # it reads the files
            await self._tell(lambda control: control.set_tls(), None)  # what they have read before is in no file
            self._model.options = fresh
            self._model.version += 1

    async def set_handler(self, handler: str) -> None:
        """Serve new connections by another handler, everywhere or nowhere."""
        given: object = handler
        if not isinstance(given, str):
            reason = 'it takes a place such as "package.module:name", because workers import it'
            raise InvalidOption(reason, option="handler", value=given)
        async with self._crew.changing:
            self._require_open()
            old = self._model.handler
            undo = (lambda control: control.set_handler(old)) if self._model.arguments is None else None
            await self._tell(lambda control: control.set_handler(handler), undo)
            self._model.handler, self._model.arguments = handler, None
            self._model.handler_path = handler
            self._model.version += 1

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
        async with self._crew.changing:
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

    # Life

    async def suspend(self) -> None:
        """Stop accepting, in every worker."""
        await self._accept("suspended")

    async def resume(self) -> None:
        """Accept again."""
        await self._accept("running")

    async def _accept(self, state: Literal["running", "suspended"]) -> None:
        async with self._crew.changing:
            self._require_open()
            model = self._model
            await self._tell(ACCEPTING[state], ACCEPTING[model.state])
            model.state = state
            model.version += 1

    async def reopen(self, address: object = None) -> None:
        """Refuse: the sockets of workers are open as long as the program runs, so that no queued client is lost.

        Raises:
            InvalidOption: Always.
        """
        reason = "workers keep their sockets as long as the program runs"
        raise InvalidOption(reason, option="address", value=address, hint="Start the program anew.")

    async def drain(self, timeout: float | Unset | None = UNSET, rate: float | None = None) -> None:
        """Close the listener gracefully in every worker, and return when its last connection has ended."""
        model = self._model
        given = model.options.shutdown_timeout if isinstance(timeout, Unset) else timeout
        self._ending.ask(given, rate, again=model.state in ("draining", "closed"))
        if model.state == "closed":
            return
        if model.rehearsal is not None and model.rehearsal.is_running:
            model.rehearsal.end("over", "the listener was closed")
            await self._look_at(model.rehearsal)
        self._begin_to_end()
        async with anyio.create_task_group() as task_group:
            live = self._crew.live()
            for process in live:
                if (control := process.control(model.number)) is not None:
                    each_per_s = None if rate is None else rate / len(live)
                    task_group.start_soon(self._drain, process, control, given, each_per_s)
        if not self._closed.is_set():
            model.state = "closed"
            model.close()
            self._closed.set()
            self._crew.listener_closed()

    def _begin_to_end(self) -> None:
        if self._model.state != "closed":
            self._model.state = "draining"
            self._model.version += 1
            self._crew.listener_closes()

    async def _drain(
        self, process: WorkerProcess, control: ListenerControl, timeout_s: float | None, rate_per_s: float | None
    ) -> None:
        if self._model.sockets is not None and self._model.sockets.is_left:
            await process.retire()  # the queue is another program's
        most_s = math.inf if timeout_s is None or rate_per_s is not None else timeout_s + FORCE_AFTER_S
        has_died = False
        with anyio.move_on_after(most_s) as scope:
            try:
                await control.drain(timeout_s, rate_per_s)
            except InstanceUnreachable:
                has_died = True
            except EsockdError:
                pass  # it is closed already
        if scope.cancelled_caught:
            process.kill()
            has_died = True
        if has_died:
            with anyio.move_on_after(FORCE_AFTER_S):
                await process.ended.wait()  # and its connections are counted

    async def close(self) -> None:
        """Close the listener gracefully. Each handler has `shutdown_timeout` to end."""
        await self.drain()

    async def kill(self) -> None:
        """Close the listener and cancel every handler at once."""
        await self.drain(timeout=0)

    async def wait_closed(self) -> None:
        """Return when nothing is left of the listener."""
        await self._closed.wait()


def _put_back(plan: OptionPlan, old: ListenerOptions, rules: tuple[str, ...]) -> Change | None:
    """What puts options back in force; None if they cannot be sent to a worker."""
    names = dict.fromkeys(change.name.partition(".")[0] for change in plan.changes)
    before: dict[str, Any] = {name: getattr(old, name) for name in names}
    if "access_rules" in before:
        before["access_rules"] = rules
    try:
        for name, value in before.items():
            argument_to_json(name, value)
    except InvalidOption:
        return None
    return lambda control: control.set_options(**before)
