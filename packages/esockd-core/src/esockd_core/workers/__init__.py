"""Listeners that several processes serve, by limits that hold over all of them."""

from esockd_core.workers._model import WorkerListener
from esockd_core.workers._workers import Workers

__all__ = ["WorkerListener", "Workers"]
