"""One client of a control socket, on the side of the program."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import anyio

from esockd_core._errors import EsockdError, InvalidOption
from esockd_core._plain import to_json
from esockd_core._remote.errors import ControlDenied, ControlError, UnknownMethod, error_to_json
from esockd_core._remote.methods import CHANGES, METHODS, WAITS
from esockd_core._remote.wire import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    BadMessage,
    Inbox,
    Message,
    RequestId,
    TooLong,
    encode,
    encode_event,
    read_id,
)
from esockd_core.control.instance import ControlGreeting

if TYPE_CHECKING:
    from esockd_core._platform.peer_process import PeerProcess
    from esockd_core._remote.changes import Changes
    from esockd_core._remote.instance import Instance
    from esockd_core._remote.pace import Pace

logger = logging.getLogger("esockd_core")
audit = logging.getLogger("esockd_core.audit")

MAX_LOOK_BYTES: Final = 64 << 10  # of a request of a client that may change nothing
MAX_OUTSTANDING: Final = 64  # requests of one client that wait for something
SHORTEST_INTERVAL_S: Final = 0.1
LONGEST_INTERVAL_S: Final = 3_600.0
ALL_METHODS: Final = tuple(sorted((*METHODS, "cancel", "get_instance", "hello", "listeners", "restart", "subscribe")))

Task: TypeAlias = Callable[[], Awaitable[None]]


class Wire(Protocol):
    """A stream to a client; see `StreamConnection`."""

    @property
    def draining(self) -> bool:
        """Whether the program ends."""
        ...

    async def wait_draining(self) -> None:
        """Return when the program ends."""

    async def receive(self) -> bytes:
        """The next bytes of the client."""
        ...

    async def send(self, item: bytes, /) -> None:
        """Send bytes to the client."""

    def abort(self, reason: str, /) -> None:
        """Close the stream at once."""


class Session:
    """Answers the requests of one client in order. Requests that wait for something are answered later.

    Only one answer is in memory, and the next request is read when it has been sent. A client that does not read its
    answers delays only itself, until `send_timeout` ends it.

    Args:
        instance: The program.
        changes: Makes the changes of all clients.
        connection: The client's connection.
        peer: Its process; None if the kernel does not tell.
        pace: Shared by all clients of the socket.
        is_read_only: Whether it may change nothing.
        most: How many of its requests may wait for something; None for any number.
    """

    def __init__(
        self,
        instance: Instance,
        changes: Changes,
        connection: Wire,
        peer: PeerProcess | None,
        pace: Pace,
        *,
        is_read_only: bool,
        most: int | None = MAX_OUTSTANDING,
    ) -> None:
        self._instance = instance
        self._changes = changes
        self._connection = connection
        self._peer = peer
        self._pace = pace
        self._is_read_only = is_read_only
        self._most = most
        self._inbox = Inbox(MAX_LOOK_BYTES if is_read_only else MAX_MESSAGE_BYTES)
        self._sending = anyio.Lock()
        self._receiving = anyio.CancelScope()
        self._outstanding: dict[RequestId, anyio.CancelScope] = {}
        self._subscriptions: set[RequestId] = set()
        self._tasks = anyio.create_task_group()

    async def serve(self) -> None:
        """Serve the client until it leaves or the program ends."""
        try:
            async with self._tasks:
                self._tasks.start_soon(self._end_with_program)
                await self._write(encode({"esockd": self._greeting().as_dict()}))
                while not self._connection.draining and (data := await self._receive()):
                    await self._pace.wait()  # blank lines and parts cost time too, and are no requests
                    messages = self._inbox.feed(data)
                    while (message := self._read(messages)) is not None:
                        await self._take(message)
                if not self._connection.draining:
                    self._tasks.cancel_scope.cancel()
        except* TooLong as group:
            await self._send_error(None, ControlError(str(group.exceptions[0]), code="too_long"))
            self._connection.abort("too_long")  # an orderly close would read on, and there may be no end of it
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # it left

    async def _end_with_program(self) -> None:
        """Answer requests that still wait for a change, as long as `shutdown_timeout` allows."""
        await self._connection.wait_draining()
        self._receiving.cancel()
        for request in self._subscriptions:
            self._outstanding[request].cancel()

    async def _receive(self) -> bytes:
        """The next bytes of the client; none if it has finished or the program ends."""
        with anyio.CancelScope() as self._receiving:
            try:
                return await self._connection.receive()
            except anyio.EndOfStream:
                pass
        return b""

    def _read(self, messages: Iterator[Message | BadMessage]) -> Message | BadMessage | None:
        with self._pace.spending():
            return next(messages, None)

    def _greeting(self) -> ControlGreeting:
        return ControlGreeting(
            protocol=PROTOCOL,
            version=self._instance.version,
            name=self._instance.name,
            pid=os.getpid(),
            started_at=self._instance.started_at,
            read_only=self._is_read_only,
            methods=tuple(sorted((*ALL_METHODS, *self._instance.methods))),
        )

    async def _take(self, message: Message | BadMessage) -> None:
        if isinstance(message, BadMessage):
            await self._send_error(None, ControlError(str(message), code="invalid_request"))
            return
        request = read_id(message)
        try:
            await self._pace.wait()
            await self._handle(request, message)
        except Exception as error:  # noqa: BLE001 (told to the client)
            await self._fail(request, error)

    async def _handle(self, request: RequestId, message: Message) -> None:
        method, given = message.get("method"), message.get("params", {})
        if request is None or not isinstance(method, str) or not isinstance(given, dict):
            raise ControlError('a request is {"id": number, "method": text, "params": {...}}', code="invalid_request")
        match method:
            case "hello":
                self._is_read_only = self._is_read_only or given.get("read_only") is True
                await self._answer(request, self._greeting())
            case "get_instance":
                await self._answer(request, self._instance.status())
            case "listeners":
                await self._answer(request, await self._instance.listeners())
            case "cancel":
                scope = self._outstanding.get(read_id(given))
                if scope is not None:
                    scope.cancel()
                await self._answer(request, scope is not None)
            case "subscribe":
                interval_s = _interval(given.get("interval", 1.0))
                self._start(request, lambda: self._stream(request, interval_s))
            case "restart":
                self._require_leave(method)
                self._start(request, lambda: self._act(request, self._restart))
            case _ if method in self._instance.methods:
                self._call_program(request, method, given)
            case _ if method in METHODS:
                await self._call(request, method, message, given)
            case _:
                raise UnknownMethod(f"this instance knows no method {method[:80]!r}", code="unknown_method")

    async def _call(self, request: RequestId, method: str, message: Message, given: Mapping[str, Any]) -> None:
        if method in CHANGES:
            self._require_leave(method)
        with self._pace.spending():
            arguments, named = METHODS[method].bind(given)
            control = await self._instance.find(message.get("listener"), message.get("address"))

        async def call() -> Any:
            return await getattr(control, method)(*arguments, **named)

        async def change() -> Any:
            return await self._changes.make(control, method, given, call, self._peer)

        act = change if method in CHANGES else call
        if method in WAITS:
            self._start(request, lambda: self._act(request, act))
        elif method in CHANGES:
            await self._act(request, act)
        else:
            with self._pace.spending():
                result = await act()
            await self._answer(request, result)

    def _require_leave(self, method: str) -> None:
        if self._is_read_only:
            raise ControlDenied(f"{method} is a change, and this connection is read-only", code="denied")

    async def _restart(self) -> None:
        who = "somebody" if self._peer is None else f"uid {self._peer.uid}, pid {self._peer.pid}"
        audit.info("%s: restart by %s", self._instance.name, who)
        await self._instance.restart()

    def _call_program(self, request: RequestId, name: str, given: Mapping[str, Any]) -> None:
        method = self._instance.methods[name]
        if method.is_change:
            self._require_leave(name)
        self._start(request, lambda: self._act(request, lambda: method.call(given)))

    async def _act(self, request: RequestId, act: Callable[[], Awaitable[Any]]) -> None:
        await self._answer(request, await act())

    def _start(self, request: RequestId, task: Task) -> None:
        if request in self._outstanding:
            raise ControlError(f"the request {request} is not done yet", code="invalid_request")
        if self._most is not None and len(self._outstanding) >= self._most:
            raise ControlError(f"{self._most} requests of this client wait already", code="busy")
        self._outstanding[request] = anyio.CancelScope()
        self._tasks.start_soon(self._run, request, task)

    async def _run(self, request: RequestId, task: Task) -> None:
        try:
            with self._outstanding[request]:
                await task()
        except Exception as error:  # noqa: BLE001 (told to the client)
            await self._fail(request, error)
        finally:
            del self._outstanding[request]

    async def _stream(self, request: RequestId, interval_s: float) -> None:
        self._subscriptions.add(request)
        try:
            due = anyio.current_time()
            while not self._connection.draining:
                await self._pace.wait()
                # Made once the one before has gone out: a slow client misses some, and nothing piles up.
                async with self._sending:
                    with self._pace.spending():
                        lines = encode_event(request, await self._instance.snapshot_text())
                    await self._write(lines)
                due = max(due + interval_s, anyio.current_time())
                await anyio.sleep_until(due)
        finally:
            self._subscriptions.discard(request)

    async def _fail(self, request: RequestId, error: Exception) -> None:
        match error:
            case EsockdError():
                await self._send_error(request, error)
            case TooLong():
                await self._send_error(request, ControlError(str(error), code="too_long"))
            case anyio.BrokenResourceError() | anyio.ClosedResourceError():
                raise error
            case _:
                logger.error("control: a request failed", exc_info=error)
                await self._send_error(request, ControlError(f"the instance failed: {error!r}"[:500]))

    async def _answer(self, request: RequestId, result: object) -> None:
        async with self._sending:
            with self._pace.spending():
                lines = encode({"id": request, "result": to_json(result)})
            await self._write(lines)

    async def _send_error(self, request: RequestId, error: EsockdError) -> None:
        async with self._sending:
            with self._pace.spending():
                lines = encode({"id": request, "error": error_to_json(error)})
            await self._write(lines)

    async def _write(self, lines: list[bytes]) -> None:
        for line in lines:
            await self._connection.send(line)


def _interval(given: object) -> float:
    if type(given) in (int, float) and SHORTEST_INTERVAL_S <= cast("float", given) <= LONGEST_INTERVAL_S:
        return cast("float", given)
    raise InvalidOption(
        f"it takes seconds, {SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g}", option="interval", value=given
    )
