"""Workers that run in the process of the test: their listeners, shared memory and control, without the processes."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import anyio
from tests.core.conftest import until
from tests.core.workers.conftest import ECHO
from tests.core.workers.programs import echo
from tests.patience import PATIENCE_S

from esockd_core import ListenerOptions
from esockd_core.workers import WorkerListener
from esockd_core.workers._control import SharedControl
from esockd_core.workers._listener import SharedListener
from esockd_core.workers._memory import SharedMemory
from esockd_core.workers._model import Model

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Coroutine
    from contextlib import AbstractContextManager

    from anyio.abc import TaskGroup

    from esockd_core import ListenerControl, Stats
    from esockd_core.workers._process import WorkerProcess
    from esockd_core.workers._shared_rehearsal import WorkerRehearsal


@dataclass(eq=False)
class Worker:
    """As much of a `WorkerProcess` as a control sees."""

    generation: int
    listener: SharedListener
    state: str = "running"
    was_retired: bool = False
    rehearsals: dict[int, WorkerRehearsal] = field(default_factory=dict)
    stats: dict[int, Stats] = field(default_factory=dict)
    begun: anyio.Event = field(default_factory=anyio.Event)
    stand_in: Any = None  # what is asked instead of the listener
    pid: int = field(default_factory=os.getpid)

    def __str__(self) -> str:
        return f"worker {self.generation}"

    def __post_init__(self) -> None:
        self.begun.set()

    @property
    def slot(self) -> int:
        """Its slot in the shared memory."""
        return self.generation

    @property
    def share(self) -> int:
        """The number of its share."""
        return self.generation

    async def greet(self) -> None:
        """It answers."""

    def importing(self) -> AbstractContextManager[None]:
        """It is never killed."""
        return nullcontext()

    def remove(self, number: int) -> Stats | None:
        """Forget the listener."""
        return self.stats.pop(number, None)

    def control(self, _: int) -> ListenerControl:
        """Its part of the listener."""
        return cast("ListenerControl", self.stand_in or self.listener)


class Refusing:
    """A worker that refuses some changes."""

    def __init__(self, control: ListenerControl, error: Exception, *methods: str) -> None:
        self._control, self._error, self._methods = control, error, methods

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name in self._methods else getattr(self._control, name)

    async def _refuse(self, *_: object, **__: object) -> None:
        raise self._error


class WorkersHere:
    """The workers of one listener, as its control sees them."""

    import_timeout_s = 30.0

    def __init__(self, model: Model, task_group: TaskGroup) -> None:
        self.model = model
        self._task_group = task_group
        self.workers: list[Worker] = []
        self.replaced: list[Worker] = []
        self.changing = anyio.Lock()
        self.control = SharedControl(model, self)

    def live(self) -> list[WorkerProcess]:
        """All of them."""
        return cast("list[WorkerProcess]", self.workers)

    def replace_soon(self, process: WorkerProcess) -> None:
        """Note that one is to be replaced."""
        self.replaced.append(cast("Worker", process))

    def serving(self, _: int) -> list[WorkerProcess]:
        """All of them."""
        return self.live()

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, object]], *arguments: object) -> None:
        """Do it beside the workers."""
        self._task_group.start_soon(work, *arguments)

    def listener_closed(self, number: int) -> None: ...

    def listener_closes(self) -> None: ...

    async def connect(self, worker: int, source: str = "127.0.0.1") -> socket.socket:
        """A client that this worker has accepted."""
        from tests.core.conftest import connect  # noqa: PLC0415

        listener = self.workers[worker].listener
        before = listener.stats()
        sockets = self.model.sockets
        assert sockets is not None
        sockets.steer([worker])
        client = connect(listener, source)
        await until(lambda: listener.stats().accepted + listener.stats().refused > before.accepted + before.refused)
        return client


@asynccontextmanager
async def workers_here(count: int = 2, **options: Any) -> AsyncIterator[WorkersHere]:
    """Serve one listener with some workers, for the duration of a block."""
    memory = SharedMemory.create()
    mapped: list[SharedMemory] = []  # by the workers
    given = WorkerListener(
        name="echo", address="127.0.0.1:0", handler=ECHO, options=ListenerOptions(shutdown_timeout=0.0, **options)
    )
    model = Model(given, 0, count, memory.live)
    await model.open()
    model.state = "running"
    try:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as task_group:
                here = WorkersHere(model, task_group)
                for slot in range(count):
                    memory.use_slot(slot)
                    mapped.append(SharedMemory(os.dup(memory.descriptor)))
                    order = model.order(slot)
                    order = replace(order, descriptors=tuple(map(os.dup, order.descriptors)))
                    listener = SharedListener(
                        order,
                        echo,
                        replace(order.options, access_rules=order.rules),
                        mapped[slot].live,
                        slot,
                    )
                    here.workers.append(Worker(slot, await task_group.start(listener.run)))
                yield here
                task_group.cancel_scope.cancel()
    finally:
        model.close_sockets()
        for each in (*mapped, memory):
            each.close()
