"""`max_conn_rate` shared with other machines: which bucket decides, while a listener runs and its options change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup, TaskStatus

    from esockd_core._admission.admission import Admission
    from esockd_core._options.shared import SharedRate
    from esockd_ratelimit import Limiter

logger = logging.getLogger("esockd_core")


class SharedLimit:
    """Gives the admission of a listener the shared bucket of the options in force.

    Args:
        name: The listener's name, under which the server keeps the bucket.
        admission: Its admission.
    """

    def __init__(self, name: str, admission: Admission) -> None:
        self._name = name
        self._admission = admission
        self._task_group: TaskGroup | None = None
        self._rate: SharedRate | None = None
        self._leave = anyio.Event()

    async def begin(self, task_group: TaskGroup) -> None:
        """Begin to fetch tokens, in this task group, if the options ask for it."""
        self._task_group = task_group
        await self.follow()

    async def follow(self) -> None:
        """Go on with the options in force: the bucket before decides until the new one has asked its server.

        That takes no longer than the time the server has to answer.
        """
        rate = self._admission.options.shared_rate()
        if rate == self._rate or self._task_group is None:
            return
        leave, self._leave, self._rate = self._leave, anyio.Event(), rate
        if rate is not None:
            with anyio.CancelScope(shield=True):  # or the limit before would stay in force
                bucket = rate.bucket(self._name, self._tell)
                self._admission.limiter = await self._task_group.start(self._hold, bucket, self._leave)
        leave.set()

    async def _hold(
        self,
        bucket: AbstractAsyncContextManager[Limiter],
        leave: anyio.Event,
        *,
        task_status: TaskStatus[Limiter] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        async with bucket as limiter:
            task_status.started(limiter)
            await leave.wait()

    def _tell(self, why: Exception | None) -> None:
        """Log that the server went away, or is back."""
        if self._rate is None:
            return
        shown = self._rate.server.shown
        if why is None:
            logger.info("listener %s: %s answers again, and max_conn_rate is shared", self._name, shown)
            return
        granted = {"local": "its part of max_conn_rate", "closed": "nobody", "open": "everybody"}
        admits = granted[self._rate.when_away]
        logger.warning("listener %s: %s is away, and %s is let in: %s", self._name, shown, admits, why)
