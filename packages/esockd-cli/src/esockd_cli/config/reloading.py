"""Putting another configuration in force: all of it, or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from esockd_cli._errors import end_once
from esockd_cli.config.hosting import Unchangeable
from esockd_cli.config.keys import PATHS, key_of
from esockd_cli.config.plan import make_plan
from esockd_cli.config.problems import BadConfig
from esockd_cli.config.read import read_config
from esockd_cli.config.undoing import Undo
from esockd_core import ControlError, EsockdError, InvalidOption, SocketError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_cli._opening import Opening
    from esockd_cli.config.hosting import Hosting
    from esockd_cli.config.plan import OpenListener, Plan
    from esockd_cli.config.problems import Problem
    from esockd_cli.config.read import Configuration

SOON_S: Final = 1.0
ASK_AGAIN_S: Final = 0.1
GIVE_WAY_S: Final = 45.0  # a worker that does not answer is killed after 30


class Reloader:
    """Puts the configuration of a file in force, again and again.

    Args:
        configuration: The one that is in force.
        hosting: Opens and changes the listeners.
        begun: Is told of each listener that was opened.
        end: Begins to end a listener that is not in the file any more.

    Attributes:
        configuration: The one that is in force.
        hosting: Opens and changes the listeners.
        lost: What a plan that failed could not put back to what it was.
    """

    def __init__(
        self,
        configuration: Configuration,
        hosting: Hosting,
        begun: Callable[[Any], None],
        end: Callable[[Any], None],
    ) -> None:
        self.configuration: Configuration = configuration
        self.hosting: Hosting = hosting
        self.lost: list[Problem] = []
        self._begun = begun
        self._end = end

    async def plan(self) -> Plan:
        """Read the file, and say what it would change.

        Raises:
            BadConfig: It cannot be used.
        """
        known = {opening.handler_mark: opening.handler for opening in self.configuration.openings}
        has_workers = self.hosting.has_workers
        new = read_config(
            self.configuration.source.file,
            known=known,
            has_workers=has_workers,
            leaves_modules=lambda _: has_workers,  # which import them themselves
        )
        listeners = [each for each in self.hosting.listeners() if each.state in ("running", "suspended")]
        try:
            plan = await make_plan(listeners, self.configuration, new)
        except EsockdError as error:
            raise BadConfig([_problem(new, (), error)]) from error
        if has_workers and (problems := [*_needs_reopen(plan)]):
            raise BadConfig(problems)
        return plan

    async def apply(self, plan: Plan) -> None:
        """Put a plan in force.

        Raises:
            BadConfig: It could not be done, and what was in force before is in force again, except for what is lost.
        """
        opened: list[OpenListener] = []
        undo = Undo()
        with anyio.CancelScope(shield=True), self.hosting.staying():  # half of a configuration is none
            try:
                async with undo:
                    opened = await self._open(plan, undo)
                    await self._change(plan, undo)
                    undo.pop_all()
            finally:
                self.lost = [_lost(self.configuration, opening, error) for opening, error in undo.failed]
        for listener in opened:
            self._begun(listener)
        for listener in plan.drained:
            if listener.state in ("running", "suspended"):  # and has not given way already
                self._end(listener)
        applied = {kept.opening.key: kept.opening for kept in plan.kept}
        openings = tuple(applied.get(opening.key, opening) for opening in plan.new.openings)
        self.configuration = replace(plan.new, openings=openings)

    async def _open(self, plan: Plan, undo: Undo) -> list[OpenListener]:
        opened: list[OpenListener] = []
        for opening in sorted(plan.opened, key=lambda each: bool(plan.in_the_way(each))):
            for listener in plan.in_the_way(opening):
                if listener.state in ("running", "suspended"):
                    await self._give_way(listener, opening, plan, undo)
            await self._wait_for_the_end_of(opening.key)
            try:
                new = await self.hosting.open(opening)
            except EsockdError as error:
                raise BadConfig([_problem(plan.new, ("listeners", opening.name, "listen"), error)]) from error
            undo.later(opening, new.kill)
            opened.append(new)
        return opened

    async def _change(self, plan: Plan, undo: Undo) -> None:
        try:
            await self.hosting.change([kept for kept in plan.kept if kept.is_changed], undo)
        except Unchangeable as refused:
            raise BadConfig([_problem(plan.new, ("listeners", refused.opening.name), refused.error)]) from refused

    async def _wait_for_the_end_of(self, key: tuple[str, str]) -> None:
        """Give a listener that was here before, and is about to end, a moment to do so."""
        with anyio.move_on_after(SOON_S):
            while before := [each for each in self.hosting.listeners() if (each.name, str(each.address)) == key]:
                await before[0].wait_closed()
                await anyio.lowlevel.checkpoint()  # until its server has forgotten it

    async def _give_way(self, listener: OpenListener, taker: Opening, plan: Plan, undo: Undo) -> None:
        """Make a listener leave its address to another one, which may be a moment without both.

        Raises:
            BadConfig: It does not in time.
        """
        before = {opening.key: opening for opening in self.configuration.openings}
        opening = before.get((listener.name, str(listener.address)))
        self._end(listener)
        if opening is not None:
            undo.later(opening, lambda: self._open_again(opening, listener))
        with anyio.move_on_after(GIVE_WAY_S) as waiting:
            await listener.wait_draining()
        if waiting.cancelled_caught:
            message = f"listener {listener.name} has not left {listener.address} within {GIVE_WAY_S:g} seconds."
            raise BadConfig([plan.new.source.problem(("listeners", taker.name, "listen"), message, code="busy")])

    async def _open_again(self, opening: Opening, listener: OpenListener) -> None:
        with anyio.move_on_after(GIVE_WAY_S):
            await listener.kill()  # its name and its address are needed at once
        self._begun(await self._open_once_a_worker_runs(opening))

    async def _open_once_a_worker_runs(self, opening: Opening) -> OpenListener:
        """Open a listener that was open before, although all workers may just be replaced."""
        deadline = anyio.current_time() + GIVE_WAY_S
        while True:
            try:
                return await self.hosting.open(opening)
            except ControlError as error:
                if error.code not in ("busy", "worker_lost") or anyio.current_time() >= deadline:
                    raise
            await anyio.sleep(ASK_AGAIN_S)


def _needs_reopen(plan: Plan) -> Iterator[Problem]:
    """The options that workers cannot change, because they keep the sockets of a listener."""
    for kept in plan.kept:
        for option in kept.plan.needs_reopen:
            yield plan.new.source.problem(
                ("listeners", kept.opening.name, *PATHS.get(option, ())),
                f"{key_of(option)} takes new listening sockets, and workers keep those of a listener.",
                "Give the listener another name: the one before is drained, and a new one is opened.",
                "needs_reopen",
            )


def _lost(before: Configuration, opening: Opening, error: EsockdError) -> Problem:
    """What is not in force any more, although the new configuration is not either."""
    problem = _problem(before, ("listeners", opening.name), error)
    message = f"{opening} could not be put back to what it was: {problem.message}"
    return replace(problem, line=None, message=message)  # the lines are those of the new file


def _problem(new: Configuration, path: tuple[str | int, ...], error: EsockdError) -> Problem:
    match error:
        case SocketError():
            return new.source.problem((*path[:2], "listen"), f"{error.strerror}.", error.hint, "cannot_bind")
        case ControlError(code="busy" | "worker_lost" | "unreachable"):  # of a worker, whatever its handler is
            return new.source.problem(path[:2], end_once(f"{error.message}."), error.hint, error.code)
        case ControlError():  # of the import of its handler
            return new.source.problem((*path[:2], "handler"), end_once(f"{error.message}."), error.hint, error.code)
    hint = error.hint if isinstance(error, InvalidOption) else None
    return new.source.problem(path, f"{str(error).removesuffix('.')}.", hint, "refused")
