"""Requests and answers of several tasks over one control connection, on the side of the client."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from esockd_core._remote.errors import ControlError, InstanceUnreachable, error_from_json
from esockd_core._remote.wire import BadMessage, Inbox, Message, TooLong, encode, read_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import ByteStream

SEND_TIMEOUT_S: Final = 10.0
CANCEL_TIMEOUT_S: Final = 1.0
HUNG_UP: Final = "hung up: its program has ended, or this client was too slow"
NOT_OURS: Final = "does not speak as a control socket does"


class Waiting:
    """A request that a task waits for. Of several events the last one counts."""

    def __init__(self) -> None:
        self._answer: Message = {}
        self._lost: str | None = None
        self._news = anyio.Event()

    def tell(self, answer: Message) -> None:
        """Note an answer or event."""
        self._answer = answer
        self._news.set()

    def lose(self, why: str) -> None:
        """Note that nothing more can come."""
        self._lost = why
        self._news.set()

    async def news(self) -> Message:
        """Wait for news, and return the last one.

        Raises:
            EsockdError: If the request failed.
            InstanceUnreachable: If nothing can come any more.
        """
        await self._news.wait()
        answer, self._answer = self._answer, {}
        if self._lost is None:
            self._news = anyio.Event()
        elif not answer:
            raise unreachable(self._lost)
        if isinstance(error := answer.get("error"), dict):
            raise error_from_json(cast("dict[str, Any]", error))
        return answer


class Channel:
    """A control connection.

    Args:
        stream: The stream to the instance.
        place: The name of the socket for messages.
    """

    def __init__(self, stream: ByteStream, place: str) -> None:
        self._stream = stream
        self._place = place
        self._inbox = Inbox()
        self._ids = count(1)
        self._waiting: dict[int, Waiting] = {}
        self._sending = anyio.Lock()
        self._lost: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether nothing can come any more."""
        return self._lost is not None

    async def greeting(self) -> dict[str, Any]:
        """Receive the first message of the other side. Call it before anything else.

        Raises:
            InstanceUnreachable: If it hangs up or is not a control socket.
            EsockdError: If it refuses to serve this client; the error says why.
        """
        greeting = (await self._next()).get("esockd")
        if not isinstance(greeting, dict):
            raise unreachable(f"{self._place} {NOT_OURS}")
        return cast("dict[str, Any]", greeting)

    async def promise_to_look_only(self) -> dict[str, Any]:
        """Give up the right to change anything, and return the new greeting. Call it before `run`.

        Raises:
            InstanceUnreachable: As for `greeting`.
        """
        await self.send({"id": next(self._ids), "method": "hello", "params": {"read_only": True}})
        return cast("dict[str, Any]", (await self._next()).get("result", {}))

    async def _next(self) -> Message:
        try:
            while True:
                for message in self._inbox.feed(await self._stream.receive()):
                    if isinstance(message, BadMessage):
                        raise message
                    if isinstance(error := message.get("error"), dict):
                        raise error_from_json(cast("dict[str, Any]", error))
                    return message
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise unreachable(f"{self._place} {HUNG_UP}") from error
        except BadMessage as error:
            raise unreachable(f"{self._place} {NOT_OURS}") from error

    async def run(self) -> None:
        """Pass answers to the tasks that wait for them, until the connection ends."""
        try:
            while True:
                for message in self._inbox.feed(await self._stream.receive()):
                    if isinstance(message, BadMessage):
                        raise message
                    waiting = self._waiting.get(cast("int", read_id(message)))
                    if waiting is not None:
                        waiting.tell(message)
        except (BadMessage, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
            self._lose(NOT_OURS if isinstance(error, BadMessage) else HUNG_UP)
        finally:
            self._lose("is not connected any more")

    async def request(self, method: str, params: Mapping[str, Any], *, waits: bool = False, **target: Any) -> Any:
        """Send a request, and wait for the answer.

        Args:
            method: The name of the method.
            params: Its parameters, as JSON can hold them.
            waits: Whether the answer may take for ever. Then the other side is told if this task is cancelled.
            target: The listener.

        Raises:
            EsockdError: If the other side answers with an error.
            InstanceUnreachable: If the connection is lost.
        """
        number, waiting = self.open_request()
        try:
            await self.send({"id": number, "method": method, **target, "params": params})
            return (await waiting.news()).get("result")
        except BaseException as error:
            if waits and not isinstance(error, Exception):
                await self.cancel(number)
            raise
        finally:
            self.close_request(number)

    def open_request(self) -> tuple[int, Waiting]:
        """Make a new id, and the object that waits for its news."""
        number, waiting = next(self._ids), Waiting()
        if self._lost is not None:
            waiting.lose(self._lost)
        self._waiting[number] = waiting
        return number, waiting

    def close_request(self, number: int) -> None:
        """Forget a request."""
        self._waiting.pop(number, None)

    async def cancel(self, number: int) -> None:
        """Tell the other side that a request is no longer waited for. The time for that is bounded."""
        with anyio.move_on_after(CANCEL_TIMEOUT_S, shield=True):
            await self.send({"id": next(self._ids), "method": "cancel", "params": {"id": number}})

    async def send(self, message: Message) -> None:
        """Send a message whole, or lose the connection.

        Raises:
            ControlError: If it is too long.
        """
        try:
            lines = encode(message)
        except TooLong as error:
            raise ControlError(str(error), code="too_long") from error
        async with self._sending:
            if self._lost is not None:
                return  # the task that waits for an answer is told
            # A line cut short by a cancellation would spoil all that follow it.
            with anyio.move_on_after(SEND_TIMEOUT_S, shield=True) as scope:
                try:
                    for line in lines:
                        await self._stream.send(line)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self._lose(HUNG_UP)
            if scope.cancelled_caught:
                self._lose(f"took no request for {SEND_TIMEOUT_S:g} seconds: its event loop may be blocked")

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = f"{self._place} {why}"
            for waiting in self._waiting.values():
                waiting.lose(self._lost)


def unreachable(why: str, hint: str | None = None) -> InstanceUnreachable:
    """Make the error of an instance that does not answer."""
    return InstanceUnreachable(why, code="unreachable", hint=hint)
