"""The receiving half of a stream connection: bytes as they come, and messages, from its own buffer.

A message leaves the buffer only when all of it has come, so a call that fails or is cancelled has taken nothing.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Self

from anyio import BusyResourceError, EndOfStream

from esockd_core._connection.buffer import Buffer, Unread
from esockd_core._connection.face import READ_BYTES
from esockd_core._errors import MessageCutShort, MessageTooLong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine

YIELD_EVERY: Final = 32  # operations that did not block, before other connections get their turn
MESSAGES_PER_TURN: Final = 256  # that were here already, where nothing else is done
MESSAGES_PER_READ: Final = MESSAGES_PER_TURN // YIELD_EVERY  # what reading more counts for


class Receiving(Buffer):
    """The receiving half of a stream: bytes as they come, and messages."""

    __slots__ = ()

    _receiver: Any
    _closing: bool
    _eof: bool
    _unyielded: int

    def receive(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, max_bytes: int = READ_BYTES
    ) -> Coroutine[Any, Any, bytes]:
        given: object = max_bytes
        if not isinstance(given, int) or given < 1:
            return _refuse_to_receive(max_bytes)
        return self._receive(max_bytes, EndOfStream)  # without another coroutine around it, for each message

    async def _receive(self, max_bytes: int = sys.maxsize, end: type[Exception] = StopAsyncIteration) -> bytes:
        if self._has_input():
            if self._receiver is not None:  # it waits for the rest of a message
                raise self._cannot_receive()
            await self._checkpoint()
        while (data := self._take(max_bytes)) is None:
            if self._receiver is not None or self._closing or not self._is_received():
                raise self._cannot_receive()
            if self._eof:
                raise end
            if self.draining and await self._end_for_drain():
                continue
            self._receiver = waiter = self._input_waiter()
            try:
                await waiter
            finally:
                self._receiver = None
            self._unyielded = 0
        return data

    __anext__ = _receive  # again in a class with a `_receive` of its own; another call would cost as much as a wait

    # Messages

    # Those that are here already look for a cancellation only now and then: it would cost as much as the message.

    async def receive_exactly(self, count: int, *, mid_message: bool = False) -> bytes:
        unread = self._chunk
        if type(unread) is Unread and self._unyielded < MESSAGES_PER_TURN:
            data, begin = unread.data, unread.begin
            end = begin + count
            if begin < end < len(data):  # the quick way of what follows
                self._unyielded += 1
                unread.begin = end
                return data[begin:end]
        _require_whole("count", count, 0)
        if self._must_yield():
            await self._checkpoint()
        while self._buffered_bytes() < count:
            await self._wait_for_more(mid_message=mid_message)
        return self._cut(count, count)

    async def receive_until(self, delimiter: bytes, max_bytes: int, *, mid_message: bool = False) -> bytes:
        unread = self._chunk
        if type(unread) is Unread and self._unyielded < MESSAGES_PER_TURN:
            data, begin = unread.data, unread.begin
            at = data.find(delimiter, begin)
            past = at + len(delimiter)
            if 0 <= at < past < len(data) and at - begin <= max_bytes:  # the quick way of what follows
                self._unyielded += 1
                unread.begin = past
                return data[begin:at]
        _require_whole("max_bytes", max_bytes, 1)
        if not delimiter:
            raise ValueError("the delimiter is empty; it takes at least one byte")
        if self._must_yield():
            await self._checkpoint()
        if self._chunk is None and not mid_message:
            self._chunk = data = await self._receive(sys.maxsize, EndOfStream)
            at = data.find(delimiter)
            if 0 <= at <= max_bytes and at + len(delimiter) == len(data):  # one whole message, as in most dialogues
                self._chunk = None
                return data[:at]
        searched = 0
        while (at := self._find(delimiter, searched)) < 0:
            searched = self._buffered_bytes()
            if searched >= max_bytes + len(delimiter):
                break
            await self._wait_for_more(mid_message=mid_message)
        if not 0 <= at <= max_bytes:
            raise MessageTooLong(f"the peer sent {max_bytes} bytes without the delimiter {delimiter!r}")
        return self._cut(at + len(delimiter), at)

    def _must_yield(self) -> bool:
        if self._receiver is not None:
            raise self._cannot_receive()
        if self._unyielded >= MESSAGES_PER_TURN:
            return True
        self._unyielded += 1
        return False

    def lines(self, max_bytes: int = READ_BYTES) -> AsyncIterator[bytes]:
        _require_whole("max_bytes", max_bytes, 1)
        return Lines(self, max_bytes)

    async def _wait_for_more(self, *, mid_message: bool) -> None:
        """Return when there may be more in the buffer.

        Raises:
            MessageCutShort: If the peer left after a part of the message.
        """
        if self._fill():
            self._unyielded += MESSAGES_PER_READ
            if self._unyielded >= MESSAGES_PER_TURN:
                await self._checkpoint()
            return
        begun = mid_message or self._chunk is not None
        if self._receiver is not None or self._closing or not self._is_received():
            raise self._cannot_receive()
        if self._eof:
            raise MessageCutShort("the peer left in the middle of a message") if begun else EndOfStream
        if self.draining and not begun and await self._end_for_drain():
            return
        self._forget_taken()  # so that the quick ways above need not ask whether a task waits
        self._receiver = waiter = self._input_waiter()
        try:
            await waiter
        finally:
            self._receiver = None
        self._unyielded = 0

    # What an event loop adds

    @abstractmethod
    def _is_received(self) -> bool:
        """Whether the handler gets its bytes by asking for them."""

    @abstractmethod
    async def _end_for_drain(self) -> bool:
        """Cancel the scopes of `until_draining`, as the handler asks for another message; return whether it did."""

    @abstractmethod
    def _closed_error(self) -> Exception:
        """The error of using a connection that is closed."""

    @abstractmethod
    def _has_input(self) -> bool:
        """Whether `_take` may succeed at once."""

    @abstractmethod
    def _take(self, max_bytes: int) -> bytes | None:
        """Take bytes that have already come; None if there are none."""

    @abstractmethod
    def _fill(self) -> bool:
        """Append bytes that have already come to the buffer; return False if there are none."""

    @abstractmethod
    def _input_waiter(self) -> Awaitable[object]:
        """An awaitable that is done when `_take` may succeed or the stream has ended."""

    @abstractmethod
    def _may_be_cancelled(self) -> bool:
        """Whether the current task has to check for cancellation when it does not block."""

    @abstractmethod
    async def _checkpoint(self) -> None:
        """Notice cancellation, and let other tasks run now and then."""

    def _cannot_receive(self) -> Exception:
        if not self._is_received():
            return RuntimeError(
                "a callback handler gets its bytes by data_received(); receive() is for coroutine handlers"
            )
        return self._closed_error() if self._receiver is None else BusyResourceError("receiving from")


class Lines:
    """The lines that a peer sends. Those that were not asked for yet stay in the connection."""

    __slots__ = ("_max_bytes", "_receiving")

    def __init__(self, receiving: Receiving, max_bytes: int) -> None:
        self._receiving = receiving
        self._max_bytes = max_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        receiving = self._receiving
        unread = receiving._chunk  # noqa: SLF001 - the quick way of `receive_until`, whose call would cost a quarter
        if type(unread) is Unread and receiving._unyielded < MESSAGES_PER_TURN:  # noqa: SLF001
            data, begin = unread.data, unread.begin
            at = data.find(b"\n", begin)
            if 0 <= at < len(data) - 1 and at - begin <= self._max_bytes:
                receiving._unyielded += 1  # noqa: SLF001
                unread.begin = at + 1
                return data[begin:at].removesuffix(b"\r")
        try:
            line = await receiving.receive_until(b"\n", self._max_bytes)
        except EndOfStream:
            raise StopAsyncIteration from None
        return line.removesuffix(b"\r")


async def _refuse_to_receive(max_bytes: object) -> bytes:
    # Nothing received would look like the end of the stream.
    raise ValueError(f"max_bytes is {max_bytes!r}; receive() takes a whole number, 1 or more")


def _require_whole(name: str, given: object, least: int) -> None:
    if not isinstance(given, int) or given < least:
        raise ValueError(f"{name} is {given!r}; it takes a whole number, {least} or more")
