"""The configuration file of a running program: read again on SIGHUP, by `esockd reload`, or when it changes."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from esockd_cli._errors import end_once
from esockd_cli.config.problems import BadConfig, Problem
from esockd_cli.config.reloading import Reloader
from esockd_cli.config.showing import show
from esockd_cli.config.watching import changes_of
from esockd_core import ControlError, ProgramMethod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from esockd_cli._output import Output
    from esockd_cli.config.hosting import Hosting
    from esockd_cli.config.plan import Plan
    from esockd_cli.config.read import Configuration

logger: logging.Logger = logging.getLogger("esockd_cli")

Outcome = Literal["applied", "unchanged", "planned", "refused", "restart"]

WATCH_INTERVAL_S: Final = 1.0


class ConfigFile:
    """A file that can be read again while its listeners run.

    Args:
        configuration: What was read at the start.
        output: Where to tell what changes.
        is_watched: Whether to look for changes of the file.

    Attributes:
        reloading: Is entered for the duration of each reload.
    """

    def __init__(self, configuration: Configuration, output: Output, *, is_watched: bool = False) -> None:
        self._configuration = configuration
        self._output = output
        self._is_watched = is_watched
        self._reloader: Reloader | None = None
        self._turn = anyio.Lock()
        self.reloading: Callable[[], AbstractAsyncContextManager[None]] = nullcontext

    @property
    def app_dir(self) -> Path:
        """The folder that modules are imported from."""
        return self._configuration.app_dir

    @property
    def name(self) -> str:
        """The file as it was named."""
        return self._configuration.source.file

    def attach(self, hosting: Hosting, begun: Callable[[Any], None], end: Callable[[Any], None]) -> None:
        """Say where its listeners are; see `Reloader`."""
        self._reloader = Reloader(self._configuration, hosting, begun, end)

    def methods(self) -> dict[str, ProgramMethod]:
        """What may be asked over the control socket."""
        return {
            "show_config": ProgramMethod(self._answer_show, is_change=False),
            "plan_reload": ProgramMethod(self._answer_plan, is_change=False),
            "reload": ProgramMethod(self._answer_reload),
        }

    @property
    def has_lost_listeners(self) -> bool:
        """Whether the last reload was refused, and could not put back everything that it had changed."""
        return self._reloader is not None and bool(self._reloader.lost)

    async def settle(self) -> None:
        """Wait for a reload that is under way."""
        async with self._turn:
            pass

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Let no reload happen during a block."""
        async with self._turn:
            yield

    async def watch(self) -> None:
        """Reload when the file, or one that it names, changes."""
        if not self._is_watched:
            return
        async for _ in changes_of(self._watched_files, WATCH_INTERVAL_S):
            await self.reload("--watch")

    def _watched_files(self) -> list[str]:
        reloader = self._attached()
        return [self.name, *reloader.configuration.files]

    async def reload(self, why: str) -> Mapping[str, Any]:
        """Put the file in force again, and tell what has changed.

        Args:
            why: Who asked.

        Returns:
            What happened, as JSON.
        """
        async with self._turn, self.reloading():
            reloader = self._attached()
            reloader.lost = []
            try:
                plan = await reloader.plan()
                if plan.restart:
                    return self._tell(why, "restart", plan)
                if not plan.steps():
                    return self._tell(why, "unchanged", plan)
                await reloader.apply(plan)
            except BadConfig as error:
                return self._refuse(why, error.problems, reloader.lost)
            except Exception as error:
                logger.exception("%s: %s could not be put in force", why, self.name)
                return self._refuse(why, [_defect(self.name, error)], reloader.lost)
            return self._tell(why, "applied", plan)

    def _tell(self, why: str, outcome: Outcome, plan: Plan) -> Mapping[str, Any]:
        steps = plan.steps()
        answer = {"outcome": outcome, "file": self.name, "steps": [step.fields() for step in steps], "problems": []}
        self._output.data(None, event="reloaded", why=why, **answer)
        if outcome == "applied":
            plan.new.warn()
        match outcome:
            case "unchanged":
                self._output.note(f"{why}: {self.name} changes nothing")
            case "restart":
                hint = "" if plan.hint is None else f". {plan.hint}"
                logger.error("%s: %s takes a restart, and nothing was changed%s", why, self.name, hint)
            case _:
                self._output.note(f"{why}: {self.name} is in force")
        for step in steps:
            self._output.note(f"  {step}")
        return {**answer, "lines": [str(step) for step in steps], "hint": plan.hint}

    def _refuse(self, why: str, problems: Sequence[Problem], lost: Sequence[Problem]) -> Mapping[str, Any]:
        if lost:
            problems = [*map(_without_promise, problems), *map(_without_promise, lost)]
        fields = [problem.fields() for problem in problems]
        answer = {"outcome": "refused", "file": self.name, "steps": [], "problems": fields}
        self._output.data(None, event="reloaded", why=why, **answer)
        for problem in problems:
            self._output.error(problem.error())
        outcome = "not everything is as it was" if lost else "nothing was changed"
        logger.error("%s: %s is refused, and %s", why, self.name, outcome)
        return {**answer, "lines": []}

    async def _answer_reload(self, given: Mapping[str, Any]) -> Any:
        del given
        return await self.reload("esockd reload")

    async def _answer_plan(self, given: Mapping[str, Any]) -> Any:
        del given
        async with self._turn:
            try:
                plan = await self._attached().plan()
            except BadConfig as error:
                problems = [problem.fields() for problem in error.problems]
                return {"outcome": "refused", "file": self.name, "steps": [], "problems": problems, "lines": []}
        steps = plan.steps()
        return {
            "outcome": "restart" if plan.restart else "planned" if steps else "unchanged",
            "file": self.name,
            "steps": [step.fields() for step in steps],
            "problems": [],
            "lines": [str(step) for step in steps],
            "hint": plan.hint,
        }

    async def _answer_show(self, given: Mapping[str, Any]) -> Any:
        del given
        async with self._turn:
            reloader = self._attached()
            rows = await show(reloader.configuration, reloader.hosting)
        return {"file": self.name, "rows": [row.fields() for row in rows]}

    def _attached(self) -> Reloader:
        if self._reloader is None:
            raise ControlError("the listeners are not open yet", code="not_ready")
        return self._reloader


def _without_promise(problem: Problem) -> Problem:
    """What is said of one listener does not hold for all of them."""
    return replace(problem, message=problem.message.replace(": nothing was changed", ""))


def _defect(file: str, error: Exception) -> Problem:
    """A defect of this program, or of a user's module, which must not end the listeners."""
    message = end_once(f"{type(error).__name__}: {error}.")
    return Problem(file=file, line=None, key="", code="internal", message=message)
