"""The listeners of a program with workers, as its parent knows them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from esockd_core._errors import AlreadyOpen, CannotBind, EsockdError, InvalidOption, UnknownListener
from esockd_core._platform.open_files import hint_of
from esockd_core._stats.counters import keep
from esockd_core.workers._changing import ChangeRefused
from esockd_core.workers._control import SharedControl
from esockd_core.workers._memory import SharedMemory
from esockd_core.workers._model import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esockd_core._stats.counters import Stats
    from esockd_core.workers._asking import WorkerSet
    from esockd_core.workers._model import WorkerListener


class Listeners:
    """The listeners that are open, or about to be. Counters of a closed one go on in the next of its name and address.

    Args:
        worker_count: How many workers there are.
        workers: The workers.
    """

    def __init__(self, worker_count: int, workers: WorkerSet) -> None:
        self._worker_count = worker_count
        self._workers = workers
        self._numbers = count()
        self._models: dict[int, Model] = {}
        self._controls: dict[int, SharedControl] = {}
        self._counters: dict[tuple[str, str], Stats] = {}
        self._past = 0  # what those that are gone have added to the version

    @property
    def version(self) -> int:
        """Another one whenever something has changed that a worker is told when it starts."""
        return self._past + sum(model.version for model in self._models.values())

    def __iter__(self) -> Iterator[Model]:
        return iter(tuple(self._models.values()))

    def controls(self) -> tuple[SharedControl, ...]:
        """The controls of those that are open, in the order in which they were opened."""
        return tuple(control for number, control in self._controls.items() if self._models[number].state != "new")

    def find(self, given: WorkerListener) -> SharedControl:
        """The control of a listener by name and address.

        Raises:
            InvalidAddress: If the address is not valid.
            UnknownListener: If there is none.
        """
        key = given.key
        for number, model in self._models.items():
            if model.key == key and model.state != "new":
                return self._controls[number]
        raise UnknownListener(f"no listener {key[0]} on {key[1]}")

    def find_each(self, given: Iterable[WorkerListener]) -> list[SharedControl]:
        """The controls of listeners that are changed together.

        Raises:
            ChangeRefused: If there is none, or if one is named twice.
        """
        found: list[SharedControl] = []
        for each in given:
            try:
                control = self.find(each)
                if control in found:
                    raise InvalidOption("it is named twice")
            except EsockdError as error:
                raise ChangeRefused(each, error) from error
            found.append(control)
        return found

    def make(self, given: WorkerListener) -> Model:
        """Make a listener that is not open yet.

        Raises:
            AlreadyOpen: If there is a listener with that name and address.
            CannotBind: If the system lacks descriptors or memory.
            InvalidAddress: If the address is not valid.
            InvalidOption: If an option does not apply, or exists in one process only.
        """
        key = given.key
        if any(model.key == key for model in self._models.values()):
            raise AlreadyOpen(f"listener {key[0]} on {key[1]} is open already: close it first, or give another name")
        try:
            memory = SharedMemory.create().live
        except OSError as error:
            why = f"cannot listen on {key[1]}: {error.strerror}"
            raise CannotBind(error.errno, why, hint_of(error.errno)) from error
        model = Model(given, next(self._numbers), self._worker_count, memory, self._counters.get(key))
        self._counters.pop(key, None)
        self._models[model.number] = model
        self._controls[model.number] = SharedControl(model, self._workers)
        return model

    def control(self, model: Model) -> SharedControl:
        """The control of a listener."""
        return self._controls[model.number]

    def remove(self, number: int) -> None:
        """Forget a listener that has ended, or was not opened."""
        model = self._models.pop(number)
        self._controls.pop(number)
        keep(self._counters, model.key, model.stats(()))
        self._past += model.version + 1
        model.close_memory()
