"""Connections on trio: a non-blocking socket, waited for with trio's own primitives.

A read that got less than it asked for has emptied the kernel's buffer, so the next one waits first.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from anyio import BrokenResourceError, ClosedResourceError
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, notify_closing, wait_readable

from esockd_core._connection.face import READ_BYTES, TLS_CUT_SHORT
from esockd_core._connection.names import name_of
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._loops.trio.handshaking import CIPHERTEXT_BYTES, TrioHandshaking
from esockd_core._stats.reasons import RESET
from esockd_core._tls.facts import describe_tls

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine
    from typing import Any

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.site import Site
    from esockd_core._loops.trio.side import TrioSide
    from esockd_core._options.listener import PeerName
    from esockd_core._tls.engine import TlsEngine
    from esockd_core._tls.facts import TlsInfo

WAITING: Final = True  # what `_receiver` is meanwhile; closing the socket wakes the task


class TrioStream(TrioHandshaking):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A connection on trio."""

    __slots__ = (
        "_engine",
        "_flushed",
        "_flushing",
        "_handler_running",
        "_info",
        "_is_shaking",
        "_kept",
        "_may_be_readable",
        "_owes_answers",
        "_reading",
        "_scope",
        "_side",
        "_socket",
        "_sockname",
        "_task",
        "_unsent",
        "_wire_bytes_out",
        "socket_peername",
    )

    def __init__(self, site: Site, driver: AnyDriver, side: TrioSide, connected: socket.socket) -> None:
        super().__init__(site, driver)
        self._side = side
        self._socket = connected
        self._engine: TlsEngine | None = None
        self._info: TlsInfo | None = None
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None
        self._sockname: PeerName | None = None  # of a closed socket, which has no name any more
        self._unsent: bytes | bytearray = b""  # shared by all that wait for nothing
        self._kept: bytearray | None = None  # what is sent during a handshake, None when there is none
        self._flushed: trio.Event | None = None
        self._wire_bytes_out = 0
        self._handler_running = False
        self._is_shaking = False
        self._flushing = False
        self._may_be_readable = False
        self._owes_answers = False  # the peer takes no answers of TLS, and is not read from
        self._reading = False  # for callbacks
        try:
            self.socket_peername = name_of(connected.getpeername())
        except OSError:  # gone already
            self.socket_peername = ""

    # Receiving

    async def _checkpoint(self) -> None:
        self._unyielded += 1
        if self._unyielded < YIELD_EVERY:
            await checkpoint_if_cancelled()
        else:
            self._unyielded = 0
            await checkpoint()

    async def _receive(self, max_bytes: int = sys.maxsize, end: type[Exception] = StopAsyncIteration) -> bytes:
        # What the base does, with its calls of the methods below written out: they are a twentieth of an echo.
        if self._may_be_readable or self._chunk is not None or self._eof:
            if self._receiver is not None:
                raise self._cannot_receive()
            await self._checkpoint()
        while (data := self._take(max_bytes)) is None:
            if self._receiver is not None or self._closing or not self.driver.receives:
                raise self._cannot_receive()
            if self._eof:
                raise end
            if self.draining and await self._end_for_drain():
                continue
            self._receiver = WAITING
            try:
                if self._owes_answers:
                    await self._wait_for_input()
                else:
                    await wait_readable(self._socket)
                    self._may_be_readable = True
            except trio.ClosedResourceError:  # by another task, which `state` tells
                pass
            finally:
                self._receiver = None
            self._unyielded = 0
        return data

    __anext__ = _receive

    def _has_input(self) -> bool:
        return self._may_be_readable or self._chunk is not None or self._eof

    def _take(self, max_bytes: int) -> bytes | None:
        if self._chunk is not None:
            return self._take_buffered(max_bytes)
        return self._read(max_bytes)

    def _fill(self) -> bool:
        data = self._read(sys.maxsize)
        if data is None:
            return False
        self._buffer(data)
        return True

    def _read(self, max_bytes: int) -> bytes | None:
        engine = self._engine
        if engine is not None and (engine.peer_finished or engine.error is not None) and not self._eof:
            self._tls_ended(engine)
        if not self._may_be_readable or self._owes_answers or self._eof or self._closing:
            return None
        wanted = min(max_bytes, self._site.read_bytes) if engine is None else CIPHERTEXT_BYTES
        try:
            data = self._socket.recv(wanted)
        except BlockingIOError:
            self._may_be_readable = False
            return None
        except OSError as error:
            self._break(error)
            return None
        self._may_be_readable = len(data) == wanted
        if engine is not None:
            return self._decrypt(engine, data, max_bytes)
        if data:
            self.bytes_in += len(data)
            return data
        self._eof = True
        return None

    def _decrypt(self, engine: TlsEngine, data: bytes, max_bytes: int) -> bytes | None:
        if not data:
            if engine.finished:  # the peer need not answer our own close_notify
                self._eof = True
            else:
                self._break(ConnectionAbortedError(TLS_CUT_SHORT))
            return None
        plaintext = engine.feed(data)
        if engine.outgoing.pending:
            with suppress(BrokenResourceError, ClosedResourceError):  # the next read or write tells
                self._push(engine.take())
            self._owes_answers = self._write_paused
        if not plaintext:
            if engine.peer_finished or engine.error is not None:
                self._tls_ended(engine)
            return None
        self.bytes_in += len(plaintext)
        if len(plaintext) <= max_bytes:
            return plaintext
        self._chunk = plaintext
        return self._take_buffered(max_bytes)

    def _tls_ended(self, engine: TlsEngine) -> None:
        error = engine.error
        if error is None:
            self._eof = True
        elif not self._closing:
            self._error = self._error or error
            self.note_reason(RESET)
            if engine.is_flooded:
                self.abort()
            else:  # after the alert that tells why
                self._stop_handler_io()
                self._begin_close()

    def _input_waiter(self) -> Coroutine[Any, Any, None]:
        return self._wait_for_input()

    async def _wait_for_input(self) -> None:
        while self._owes_answers and not self._closing:
            await self._wait_room()
        if self._closing:
            return
        try:  # no context manager: an idle connection waits here, and would hold it
            await wait_readable(self._socket)
            self._may_be_readable = True
        except trio.ClosedResourceError:  # by another task, which `state` tells
            pass

    def _wake_receiver(self) -> None:
        if not self._lost:
            notify_closing(self._socket)

    def _has_pending(self) -> bool:
        """Whether there is something to take that polling the socket does not show."""
        engine = self._engine
        return self._chunk is not None or (
            engine is not None and not self._eof and (engine.peer_finished or engine.error is not None)
        )

    # Receiving for callbacks

    def on_readable(self) -> None:
        """There is input, or an end or an error to read."""
        self._may_be_readable = True
        if self._engine is not None or self._chunk is not None:
            self._deliver()
            return
        data = self._read(sys.maxsize)  # as below, without the loop
        if data is not None:
            self.driver.data_received(self, data)
        elif self._eof:
            self._pause_input()
            self.driver.eof_received(self)

    def _deliver(self) -> None:
        while self._reading and not self._closing:
            data = self._take(sys.maxsize)
            if data is not None:
                self.driver.data_received(self, data)
                if self._engine is None and self._chunk is None:
                    return  # the poller tells of what comes next
            elif self._eof:
                self._pause_input()
                self.driver.eof_received(self)
            if self._owes_answers and self._reading:
                self._side.poller.remove(self._socket.fileno())
            if not self._has_pending():
                break

    async def _deliver_later(self) -> None:
        if not self._is_shaking:  # a handshake that began meanwhile reads for itself
            self._deliver()

    def _pause_input(self) -> None:
        if self._reading:
            self._reading = False
            self._side.poller.remove(self._socket.fileno())

    def _resume_input(self) -> None:
        if not self._reading and not self._closing and not self._eof and not self.driver.receives:
            self._reading = True
            if self._kept is None:  # a handshake reads for itself
                self._poll()

    def _poll(self) -> None:
        self._side.poller.add(self._socket.fileno(), self)
        if self._has_pending():
            self._side.nursery.start_soon(self._deliver_later)

    # TLS

    def _has_tls(self) -> bool:
        return self._engine is not None or self._kept is not None

    def _own_tls(self) -> TlsInfo | None:
        if self._info is None and self._engine is not None:
            self._info = describe_tls(self._engine.tls)
        return self._info

    # Ending

    def _read_on(self) -> None:
        self._pause_input()  # nobody cares for what comes, and the poller would report it again and again

    def _break(self, error: OSError) -> None:
        self._error = self._error or error.with_traceback(None)  # whose frames would hold this connection
        self.close_socket()

    def _begin_close(self) -> None:
        self._pause_input()
        self._kept = None  # what waits for the end of a handshake never travels in the clear
        if not self._eof_sent:
            self._eof_sent = True
            self._finish_sending()
        if self._lost:
            return
        if self._eof and not self._unsent:
            self.close_socket()
        else:
            self._site.watch.closing[self] = (-1, self.now())
            self._side.nursery.start_soon(self._linger)

    async def _linger(self) -> None:
        """Read on until the peer finishes too, and close."""
        try:
            while not self._eof and not self._lost:  # or lost before this task's first turn
                await wait_readable(self._socket)
                with suppress(BlockingIOError):
                    data = self._socket.recv(READ_BYTES)
                    self._eof = not data
                    self.bytes_in += len(data)
            await self.wait_flushed()
        except (trio.ClosedResourceError, trio.BusyResourceError, OSError):
            pass  # closed meanwhile, by the sweeper or by the peer's reset
        finally:
            self.close_socket()

    def close_socket(self) -> None:
        if self._lost:
            return
        self._pause_input()
        broke = self._error is not None and not self._closing
        self._lost = self._closing = True
        self._sockname = name_of(self._socket.getsockname())
        notify_closing(self._socket)
        self._socket.close()
        self._unsent = b""
        self._site.watch.socket_lost(self)
        self._write_paused = False
        self._wake_senders()
        self.driver.lost(self, broke)

    # Looking at it

    @property
    def sockname(self) -> PeerName:  # type: ignore[override]
        return name_of(self._socket.getsockname()) if self._sockname is None else self._sockname

    def unsent_bytes(self) -> int:
        return len(self._unsent) + len(self._kept or b"")

    def wire_bytes_out(self) -> int:
        return self._wire_bytes_out

    def _raw_socket(self) -> socket.socket:
        return self._socket
