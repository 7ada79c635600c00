"""Snapshots of a program, one each interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from esockd_core._remote.errors import ControlError
from esockd_core.control.instance import InstanceSnapshot

if TYPE_CHECKING:
    from types import TracebackType

    from esockd_core._remote.channel import Channel, Waiting


class Subscription:
    """Iterate over it within `async with`. A slow reader gets the newest snapshot and misses those before it."""

    def __init__(self, channel: Channel, interval: float) -> None:
        self._channel = channel
        self._interval = interval
        self._number: int | None = None
        self._waiting: Waiting | None = None

    async def __aenter__(self) -> Self:
        self._number, self._waiting = self._channel.open_request()
        await self._channel.send({"id": self._number, "method": "subscribe", "params": {"interval": self._interval}})
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._number is not None:
            self._channel.close_request(self._number)
            await self._channel.cancel(self._number)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InstanceSnapshot:
        """The next snapshot.

        Raises:
            InvalidOption: If the interval is out of bounds.
            InstanceUnreachable: If the program has ended.
        """
        if self._waiting is None:
            raise RuntimeError("use it as `async with client.watch() as snapshots:`")
        answer = await self._waiting.news()
        try:
            return InstanceSnapshot.from_dict(answer["event"])
        except (KeyError, ValueError) as error:
            raise ControlError(f"a snapshot cannot be read: {error}", code="bad_answer") from error
