"""Who serves the listeners of a file: this process by itself, or its workers."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from esockd_cli._worker_listener import worker_listener
from esockd_cli.config.plan import all_options
from esockd_core import EsockdError
from esockd_core.workers import ChangeRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from esockd_cli._opening import Opening
    from esockd_cli.config.plan import Kept, OpenListener
    from esockd_cli.config.undoing import Undo
    from esockd_core import Server
    from esockd_core.workers import Workers


class Unchangeable(Exception):  # noqa: N818 (an answer)
    """A listener cannot become what the file says.

    Attributes:
        opening: What it was to be.
        error: Why it cannot.
    """

    def __init__(self, opening: Opening, error: EsockdError) -> None:
        super().__init__(str(error))
        self.opening = opening
        self.error = error


class Hosting(Protocol):
    """Opens and changes listeners.

    Attributes:
        has_workers: Whether workers serve them.
    """

    has_workers: bool

    def listeners(self) -> Sequence[OpenListener]:
        """The open listeners."""
        ...

    def staying(self) -> AbstractContextManager[None]:
        """Let the last listener be replaced by another one in a block."""
        ...

    async def open(self, opening: Opening) -> OpenListener:
        """Open a listener.

        Raises:
            EsockdError: It cannot be opened.
        """
        ...

    async def change(self, changed: Sequence[Kept], undo: Undo) -> None:
        """Change listeners, all of them or none.

        Args:
            changed: The listeners, with what they are to be.
            undo: Gets what undoes it.

        Raises:
            Unchangeable: One cannot be changed.
        """


class ServerHosting:
    """Listeners that this process serves by itself.

    Args:
        server: Has the listeners.
    """

    has_workers = False

    def __init__(self, server: Server) -> None:
        self._server = server

    def listeners(self) -> Sequence[OpenListener]:
        """The open listeners."""
        return self._server.listeners()

    def staying(self) -> AbstractContextManager[None]:
        """Nothing is needed: a server stays without listeners."""
        return nullcontext()

    async def open(self, opening: Opening) -> OpenListener:
        """Open a listener."""
        return await self._server.open(opening.name, opening.address, opening.handler, opening.options)

    async def change(self, changed: Sequence[Kept], undo: Undo) -> None:
        """Change listeners, all of them or none."""
        for kept in changed:
            await self._change(kept, undo)

    async def _change(self, kept: Kept, undo: Undo) -> None:
        opening, before = kept.opening, kept.before
        try:
            listener = self._server.listener(opening.name, opening.address)  # or it was closed meanwhile
            options = replace(listener.options, access_rules=listener.options.access_list())
            if kept.plan.changes:
                await listener.reset_options(reopen=True, **all_options(opening.options))
                undo.later(opening, lambda: listener.reset_options(reopen=True, **all_options(options)))
            if kept.has_new_handler:
                await listener.set_handler(opening.handler)
                if before is not None:
                    undo.later(opening, lambda: listener.set_handler(before.handler))
        except EsockdError as error:
            raise Unchangeable(opening, error) from error


class WorkersHosting:
    """Listeners that workers serve.

    Args:
        workers: The workers.
        app_dir: The folder that user modules are found in.
    """

    has_workers = True

    def __init__(self, workers: Workers, app_dir: Path) -> None:
        self._workers = workers
        self._app_dir = app_dir

    def listeners(self) -> Sequence[OpenListener]:
        """The open listeners."""
        return self._workers.listeners()

    def staying(self) -> AbstractContextManager[None]:
        """Let the workers stay although no listener may be open."""
        return self._workers.staying()

    async def open(self, opening: Opening) -> OpenListener:
        """Open a listener in every worker, or in none."""
        return await self._workers.open(worker_listener(opening, self._app_dir))

    async def change(self, changed: Sequence[Kept], undo: Undo) -> None:  # noqa: ARG002 (nothing comes after)
        """Change listeners in every worker, all of them or none."""
        openings = {each.opening.key: each.opening for each in changed}
        wanted = [worker_listener(opening, self._app_dir) for opening in openings.values()]
        try:
            await self._workers.change(*wanted)
        except ChangeRefused as refused:
            raise Unchangeable(openings[refused.listener.key], refused.error) from refused
