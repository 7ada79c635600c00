"""Connections on trio: a non-blocking socket, waited for with trio's own primitives.

A read that got less than it asked for has emptied the kernel's buffer, so the next one waits first. Bytes that a send
could not give to the kernel at once are kept and flushed by a separate task, so a cancelled send loses nothing.
"""

from __future__ import annotations

import socket
import ssl
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, notify_closing, wait_readable, wait_writable

from esockd_core._connection.entrance import EntranceRefused, closed_in_handshake
from esockd_core._connection.face import READ_BYTES, TLS_CUT_SHORT
from esockd_core._connection.names import name_of
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._connection.stream import StreamBase
from esockd_core._loops.trio.handled import HandledConnection
from esockd_core._stats.reasons import RESET, TLS_FAILED
from esockd_core._tls.engine import MAX_RECORD_BYTES, TlsEngine
from esockd_core._tls.facts import describe_tls

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.site import Site
    from esockd_core._loops.trio.side import TrioSide
    from esockd_core._options.listener import PeerName
    from esockd_core._options.tls import TlsOptions
    from esockd_core._tls.facts import TlsInfo

# With the record that the last read left unfinished this makes at most 64 KiB of plaintext.
CIPHERTEXT_BYTES: Final = 65_536 - MAX_RECORD_BYTES
WAITING: Final = True  # what `_receiver` is meanwhile; closing the socket wakes the task


class TrioStream(StreamBase, HandledConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
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

    # Sending

    def _hand_over(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept += data
            self._note_unsent()
            return
        if self._engine is not None:
            try:
                data = self._engine.write(data)
            except ssl.SSLError as error:
                self._error = self._error or error
                self.close_socket()
                raise self._closed_error() from None
        self._push(data)

    def _push(self, data: bytes) -> None:
        """Give bytes to the socket as far as it has room, and leave the rest to a task that waits for room.

        Raises:
            anyio.BrokenResourceError: If the peer is gone, and the socket is closed.
        """
        self._wire_bytes_out += len(data)
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._break(error)
                raise self._closed_error() from None
            if sent == len(data):
                return
            self._unsent = bytearray(memoryview(data)[sent:])
        else:
            self._unsent += data  # a bytearray
        if not self._flushing:
            self._flushing = True
            self._side.nursery.start_soon(self._flush)
        self._note_unsent()

    def _note_unsent(self) -> None:
        waiting = self._unsent if self._kept is None else self._kept
        paused = len(waiting) > self._site.options.write_buffer_bytes
        if paused or not self._is_shaking:  # the end of a handshake is told before that there is room again
            self._pause_writing(paused=paused)

    async def _flush(self) -> None:
        try:
            while self._unsent:
                with suppress(trio.ClosedResourceError):  # meant for a receiver, unless the socket is lost
                    await wait_writable(self._socket)
                if self._lost:
                    return
                with suppress(BlockingIOError):
                    sent = self._socket.send(memoryview(self._unsent)[: READ_BYTES * 4])
                    self._forget_sent(sent)
                self._note_unsent()
                self._answers_taken()
            if self._eof_sent and self._kept is None:
                self._shut_down_writing()
        except OSError as error:
            self._break(error)
        finally:
            self._flushing = False
            self._wake_senders()

    def _forget_sent(self, count: int) -> None:
        if count == len(self._unsent):
            self._unsent = b""
        elif isinstance(self._unsent, bytearray):
            del self._unsent[:count]

    def _answers_taken(self) -> None:
        if self._owes_answers and not self._write_paused:
            self._owes_answers = False
            if self._reading:
                self._poll()

    def _finish_sending(self) -> None:
        if self._kept is not None:
            return  # once the handshake is done
        if self._engine is not None and (close_notify := self._engine.finish()):
            with suppress(BrokenResourceError, ClosedResourceError):
                self._push(close_notify)
        if not self._unsent and not self._lost:
            self._shut_down_writing()

    def _shut_down_writing(self) -> None:
        with suppress(OSError):  # the peer may be gone already
            self._socket.shutdown(socket.SHUT_WR)

    async def _wait_room(self) -> None:
        if self._flushed is None:
            self._flushed = trio.Event()
        await self._flushed.wait()

    async def wait_flushed(self) -> None:
        """Return when the kernel has taken everything, or the socket is lost."""
        while self._flushing and not self._lost:
            await self._wait_room()

    def _wake_senders(self) -> None:
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    async def _checkpoint(self) -> None:
        self._unyielded += 1
        if self._unyielded < YIELD_EVERY:
            await checkpoint_if_cancelled()
        else:
            self._unyielded = 0
            await checkpoint()

    # TLS

    def _has_tls(self) -> bool:
        return self._engine is not None or self._kept is not None

    def _own_tls(self) -> TlsInfo | None:
        if self._info is None and self._engine is not None:
            self._info = describe_tls(self._engine.tls)
        return self._info

    async def shake_hands(self, engine: TlsEngine, received: bytes) -> None:
        """Do the handshake, and continue over TLS.

        Args:
            engine: A fresh one.
            received: Bytes that came from the socket already.

        Raises:
            EntranceRefused: If it failed.
            trio.ClosedResourceError: If this end was closed meanwhile.
        """
        raw = self._socket
        plaintext = engine.feed(received) if received else b""
        while True:
            unsent = memoryview(engine.take())
            self._wire_bytes_out += len(unsent)
            while unsent:
                try:
                    unsent = unsent[raw.send(unsent) :]
                except BlockingIOError:
                    await wait_writable(raw)
                except OSError as error:
                    raise closed_in_handshake(engine, f"was lost ({error})") from None
            if engine.error is not None:
                raise EntranceRefused(TLS_FAILED, f"TLS handshake: {engine.why_failed()}")
            if engine.handshaken:
                break
            await wait_readable(raw)
            try:
                data = raw.recv(CIPHERTEXT_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise closed_in_handshake(engine, f"was lost ({error})") from None
            if not data:
                raise closed_in_handshake(engine, "closed")
            plaintext = engine.feed(data)
        self._engine = engine
        self._may_be_readable = True
        if plaintext:
            self.bytes_in += len(plaintext)
            self._buffer(plaintext)

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        self._require_style(receives=True)
        if self._receiver is not None:
            raise BusyResourceError("receiving from")
        unread = self._begin_tls(options, received)
        try:
            await self._go_on_with_tls(options, unread)
        except trio.Cancelled:
            self.abort()
            raise

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        self._require_style(receives=False)
        unread = self._begin_tls(options, received)
        if self._reading:
            self._side.poller.remove(self._socket.fileno())
        self._reading = True  # once it is done
        self._side.nursery.start_soon(self._start_tls_for_callbacks, options, unread)

    async def _start_tls_for_callbacks(self, options: TlsOptions, unread: bytes) -> None:
        try:
            await self._go_on_with_tls(options, unread)
            if self._reading and not self._closing:
                self._poll()
        except (BrokenResourceError, ClosedResourceError):
            pass  # `connection_lost` tells
        except OSError as error:  # no memory for the poller
            self._break(error)

    def _begin_tls(self, options: TlsOptions, received: bytes) -> bytes:
        unread = self._require_plain(options, received) + self._take_all_buffered()
        self._is_shaking = True
        self._kept = bytearray()
        self._receiver = self._kept  # no other task may receive, and closing the connection wakes the handshake
        self._site.waiting.handshakes[self] = self.now()
        return unread

    async def _go_on_with_tls(self, options: TlsOptions, unread: bytes) -> None:
        try:
            await self.wait_flushed()  # what was sent in the clear
            if self._closing:
                raise self._closed_error()
            await self.shake_hands(TlsEngine(options.context), unread)
        except EntranceRefused as refused:
            self._kept = None
            self._tls_refused(refused.why)
            raise BrokenResourceError(refused.why) from None
        except trio.ClosedResourceError:
            raise self._closed_error() from None
        else:
            self._site.waiting.handshake_done(self, self.now())
            kept, self._kept = self._kept, None
            if kept and not self._closing:
                self._hand_over(bytes(kept))
            if self._eof_sent and not self._closing:
                self._finish_sending()
            if not self._closing:
                self.driver.tls_started(self)
        finally:
            self._is_shaking = False
            self._kept = self._receiver = None
            if not self._lost:
                self._note_unsent()
            self._site.waiting.forget(self)
            self._wake_senders()

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
