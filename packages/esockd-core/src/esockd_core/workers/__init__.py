"""Listeners that several processes serve, by limits that hold over all of them."""

from esockd_core.workers._changing import ChangeRefused
from esockd_core.workers._control import SharedControl
from esockd_core.workers._model import WorkerListener
from esockd_core.workers._workers import Workers

__all__ = ["ChangeRefused", "SharedControl", "WorkerListener", "Workers"]
