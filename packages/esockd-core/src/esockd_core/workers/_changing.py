"""The part of a listener's control that changes its options, certificates and handler, over all workers."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Unpack

import anyio

from esockd_core._errors import EsockdError, InvalidOption, ListenerClosed
from esockd_core._options.changes import merge_options, plan_options
from esockd_core._options.listener import ListenerOptions
from esockd_core._remote.values import argument_to_json
from esockd_core.workers._lifecycle import NEW_SOCKETS, Lifecycle
from esockd_core.workers._limits import RATES
from esockd_core.workers._model import rule_texts
from esockd_core.workers._orders import ChangeOrder

if TYPE_CHECKING:
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.changes import OptionPlan
    from esockd_core.workers._asking import Change
    from esockd_core.workers._model import WorkerListener
    from esockd_core.workers._part import WorkerPart
    from esockd_core.workers._process import WorkerProcess


logger = logging.getLogger("esockd_core")

PUT_AGAIN_S: Final = 1.0


class ChangeRefused(EsockdError):  # noqa: N818 (names say what is wrong)
    """One of the listeners that were to be changed together cannot be; none was.

    Attributes:
        listener: The listener as it was to be.
        error: Why it cannot.
    """

    def __init__(self, listener: WorkerListener, error: EsockdError) -> None:
        super().__init__(listener, error)
        self.listener = listener
        self.error = error

    def __str__(self) -> str:
        return f"listener {self.listener.name} on {self.listener.address}: {self.error}"


@dataclass(slots=True)
class PendingChange:
    """A change that every worker has made, and that is not settled yet.

    Attributes:
        plan: The options that change.
        old: The options before.
        new: The options after.
        processes: The processes that have made it.
        undo: Takes it back in one of them; None if only another process in its place can.
        handler: Where the new handler was imported from, with its arguments; None if it stays.
    """

    plan: OptionPlan
    old: ListenerOptions
    new: ListenerOptions
    processes: list[WorkerProcess]
    undo: Change | None
    handler: tuple[str, tuple[Any, ...] | None] | None = None


class Changing(Lifecycle):
    """Changes a listener in every worker, or in none."""

    @property
    def options(self) -> ListenerOptions:
        """The options in force."""
        return self._in_force()

    async def plan_options(self, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Tell what `set_options` would do."""
        model = self._model
        return plan_options(self._in_force(), model.checked(merge_options(self._in_force(), changes)))

    async def set_options(self, *, reopen: bool = False, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Change single options, everywhere or nowhere."""
        del reopen  # what needs it is refused
        async with self._workers.changing:
            new = merge_options(self._in_force(), changes)
            return await self._change_options(new, lambda control: control.set_options(**changes))

    async def reset_options(self, *, reopen: bool = False, **options: Unpack[OptionArguments]) -> OptionPlan:
        """Replace all options, everywhere or nowhere."""
        del reopen
        async with self._workers.changing:
            new = merge_options(None, options)
            return await self._change_options(new, lambda control: control.reset_options(**options))

    def _in_force(self) -> ListenerOptions:
        return replace(self._model.options, access_rules=self._model.access)

    async def _change_options(self, new: ListenerOptions, change: Change) -> OptionPlan:
        made = await self._make(new, change)
        try:
            await self.put_rates(made)
        except BaseException:
            await self.take_back(made)
            raise
        self.settle(made)
        return made.plan

    async def _make(
        self,
        new: ListenerOptions,
        change: Change,
        undo: Change | None = None,
        *,
        imports: bool = False,
    ) -> PendingChange:
        """Let every worker make a change of options, or none."""
        self._require_open()
        model, old = self._model, self._in_force()
        new = model.checked(new)
        plan = plan_options(old, new)
        if plan.needs_reopen:
            reason = "this takes new listening sockets, and workers keep those of a listener"
            raise InvalidOption(reason, option=", ".join(plan.needs_reopen), hint=NEW_SOCKETS)
        # A bucket that is there keeps its tokens until it is known that the change holds.
        begun = replace(old, **{name: getattr(old, name) or getattr(new, name) for name in RATES})
        await model.put_rates(begun)
        undo = undo or _undo_of(plan, old, rule_texts(model.access))
        made = PendingChange(plan, old, new, [], undo)
        try:
            made.processes = await self._tell(change, undo, imports=imports)
        except BaseException:
            await self.take_back(made)
            raise
        return made

    async def put_rates(self, made: PendingChange) -> None:
        """Put the rates of a change in force. It is the last step that may fail.

        Raises:
            EsockdError: If a worker does not let go of the lock.
        """
        await self._model.put_rates(made.new)

    async def take_back(self, made: PendingChange) -> None:
        """Undo a change that is not settled, and raise nothing. A worker that cannot is replaced."""
        with anyio.CancelScope(shield=True):
            await self._take_back(made.undo, made.processes)
            try:
                await self._model.put_rates(made.old)
            except ListenerClosed:
                pass  # and its rates are of no use any more
            except EsockdError as error:
                logger.error("rates of before are in force again once that can be done: %s", error)  # noqa: TRY400
                with suppress(ListenerClosed):  # the workers end
                    self._workers.start_soon(self._put_rates_back)

    async def _put_rates_back(self) -> None:
        """Put the rates of the options in force, once the worker that holds the lock goes on or has ended."""
        model = self._model
        while model.state in ("running", "suspended"):
            await anyio.sleep(PUT_AGAIN_S)
            async with self._workers.changing:
                with suppress(EsockdError):
                    await model.put_rates(model.options)
                    return

    def settle(self, made: PendingChange) -> None:
        """Note that a change holds."""
        model = self._model
        if "access_rules" in made.plan:
            rules = made.new.access_list()
            model.access.replace(rules.rules, rules.default)
        model.options = made.new
        if made.handler is not None:
            model.handler, model.arguments = made.handler
            model.handler_path = model.handler
        model.version += 1
        self._rehearse_on()

    async def set_tls(self) -> None:
        """Read the files of certificates and keys again, everywhere or nowhere."""
        async with self._workers.changing:
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
        async with self._workers.changing:
            self._require_open()
            old = self._model.handler
            undo = (lambda control: control.set_handler(old)) if self._model.arguments is None else None
            await self._tell(lambda control: control.set_handler(handler), undo, imports=True)
            self._model.handler, self._model.arguments = handler, None
            self._model.handler_path = handler
            self._model.version += 1

    async def become(self, given: WorkerListener) -> PendingChange:
        """Give it a handler and options in place of all that it has, in every worker or in none. Call it with the lock.

        The handler is imported again only if it, or its arguments, are others.

        Returns:
            The change, to be settled or taken back.

        Raises:
            EsockdError: If a worker refuses.
        """
        self._require_open()
        model, old = self._model, self._in_force()
        new = model.checked(given.options or ListenerOptions())
        plan = plan_options(old, new)
        handler = (given.handler, given.handler_arguments)
        has_new_handler = handler != (model.handler, model.arguments)
        if not has_new_handler and not plan.changes:
            return PendingChange(plan, old, old, [], None)
        changed = dict.fromkeys(change.name.partition(".")[0] for change in plan.changes)
        order = ChangeOrder(
            number=model.number,
            handler=given.handler if has_new_handler else None,
            arguments=given.handler_arguments,
            options={name: getattr(new, name) for name in changed if name != "access_rules"},
            rules=rule_texts(new.access_list()) if "access_rules" in changed else None,
        )
        made = await self._make(new, lambda part: part.change(order), _put_back, imports=has_new_handler)
        made.handler = handler if has_new_handler else None
        return made


def _undo_of(plan: OptionPlan, old: ListenerOptions, rules: tuple[str, ...]) -> Change | None:
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


async def _put_back(part: WorkerPart) -> None:
    await part.put_back()
