"""Putting another configuration in force: all of it, or nothing."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from esockd_cli.config.plan import all_options, make_plan
from esockd_cli.config.problems import BadConfig
from esockd_cli.config.read import read_config
from esockd_core import EsockdError, InvalidOption, SocketError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_cli._opening import Opening
    from esockd_cli.config.plan import Kept, Plan
    from esockd_cli.config.problems import Problem
    from esockd_cli.config.read import Configuration
    from esockd_core import Listener, Server

SOON_S: Final = 1.0

logger: logging.Logger = logging.getLogger("esockd_cli")


class Reloader:
    """Puts the configuration of a file in force, again and again.

    Args:
        configuration: The one that is in force.
        server: Has the listeners.
        begun: Is told of each listener that was opened.
        end: Begins to end a listener that is not in the file any more.

    Attributes:
        configuration: The one that is in force.
        server: Has the listeners.
    """

    def __init__(
        self,
        configuration: Configuration,
        server: Server,
        begun: Callable[[Listener], None],
        end: Callable[[Listener], None],
    ) -> None:
        self.configuration: Configuration = configuration
        self.server: Server = server
        self._begun = begun
        self._end = end

    async def plan(self) -> Plan:
        """Read the file, and say what it would change.

        Raises:
            BadConfig: It cannot be used.
        """
        known = {opening.handler_mark: opening.handler for opening in self.configuration.openings}
        new = read_config(self.configuration.source.file, known=known)
        listeners = [each for each in self.server.listeners() if each.state in ("running", "suspended")]
        try:
            return await make_plan(listeners, self.configuration, new)
        except EsockdError as error:
            raise BadConfig([_problem(new, (), error)]) from error

    async def apply(self, plan: Plan) -> None:
        """Put a plan in force.

        Raises:
            BadConfig: It could not be done, and what was in force before is in force again.
        """
        opened: list[Listener] = []
        with anyio.CancelScope(shield=True):  # half of a configuration is none
            async with AsyncExitStack() as undo:
                opened = await self._open(plan, undo)
                for kept in plan.kept:
                    await self._change(plan, kept, undo)
                undo.pop_all()
        for listener in opened:
            self._begun(listener)
        for listener in plan.drained:
            if listener.state in ("running", "suspended"):  # and has not given way already
                self._end(listener)
        applied = {kept.opening.key: kept.opening for kept in plan.kept}
        openings = tuple(applied.get(opening.key, opening) for opening in plan.new.openings)
        self.configuration = replace(plan.new, openings=openings)

    async def _open(self, plan: Plan, undo: AsyncExitStack) -> list[Listener]:
        opened: list[Listener] = []
        for opening in sorted(plan.opened, key=lambda each: bool(plan.in_the_way(each))):
            for listener in plan.in_the_way(opening):
                if listener.state in ("running", "suspended"):
                    await self._give_way(listener, undo)
            await self._wait_for_the_end_of(opening.key)
            try:
                new = await self.server.open(opening.name, opening.address, opening.handler, opening.options)
            except EsockdError as error:
                raise BadConfig([_problem(plan.new, ("listeners", opening.name, "listen"), error)]) from error
            _later(undo, opening, new.kill)
            opened.append(new)
        return opened

    async def _wait_for_the_end_of(self, key: tuple[str, str]) -> None:
        """Give a listener that was here before, and is about to end, a moment to do so."""
        with anyio.move_on_after(SOON_S):
            while before := [each for each in self.server.listeners() if (each.name, str(each.address)) == key]:
                await before[0].wait_closed()
                await anyio.lowlevel.checkpoint()  # until its server has forgotten it

    async def _give_way(self, listener: Listener, undo: AsyncExitStack) -> None:
        """Make a listener leave its address to another one, which may be a moment without both."""
        before = {opening.key: opening for opening in self.configuration.openings}
        opening = before.get((listener.name, str(listener.address)))
        self._end(listener)
        await listener.wait_draining()
        if opening is not None:
            _later(undo, opening, lambda: self._open_again(opening, listener))

    async def _open_again(self, opening: Opening, listener: Listener) -> None:
        await listener.kill()  # its name and its address are needed at once
        again = await self.server.open(opening.name, opening.address, opening.handler, opening.options)
        self._begun(again)

    async def _change(self, plan: Plan, kept: Kept, undo: AsyncExitStack) -> None:
        listener, opening = kept.listener, kept.opening
        before = replace(listener.options, access_rules=listener.options.access_list())
        if kept.plan.changes:
            try:
                await listener.reset_options(reopen=True, **all_options(opening.options))
            except EsockdError as error:
                where = ("listen",) if isinstance(error, SocketError) else ()
                raise BadConfig([_problem(plan.new, ("listeners", opening.name, *where), error)]) from error
            _later(undo, opening, lambda: listener.reset_options(reopen=True, **all_options(before)))
        if kept.has_new_handler:
            old = next((each for each in self.configuration.openings if each.key == opening.key), None)
            await listener.set_handler(opening.handler)
            if old is not None:
                _later(undo, opening, lambda: listener.set_handler(old.handler))


def _later(undo: AsyncExitStack, opening: Opening, step: Callable[[], Awaitable[object]]) -> None:
    """Do a step if something fails; if it fails itself, the other steps are still done."""

    async def attempt() -> None:
        try:
            await step()
        except EsockdError:
            logger.exception("listener %s could not be put back to what it was", opening)

    undo.push_async_callback(attempt)


def _problem(new: Configuration, path: tuple[str | int, ...], error: EsockdError) -> Problem:
    if isinstance(error, SocketError):
        return new.source.problem(path, f"{error.strerror}.", error.hint, "cannot_bind")
    hint = error.hint if isinstance(error, InvalidOption) else None
    return new.source.problem(path, f"{str(error).removesuffix('.')}.", hint, "refused")
