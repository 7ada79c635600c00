"""Sending on trio: what the kernel does not take at once is kept, and flushed by a task of its own.

So a send that is cancelled loses nothing.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from anyio import BrokenResourceError, ClosedResourceError
from trio.lowlevel import wait_writable

from esockd_core._connection.face import READ_BYTES
from esockd_core._connection.stream import StreamBase
from esockd_core._loops.trio.handled import HandledConnection

if TYPE_CHECKING:
    from esockd_core._loops.trio.side import TrioSide
    from esockd_core._tls.engine import TlsEngine


class TrioSending(StreamBase, HandledConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A stream on trio as far as it sends. The class of the whole stream has the slots."""

    __slots__ = ()

    _engine: TlsEngine | None
    _flushed: trio.Event | None
    _flushing: bool
    _is_shaking: bool
    _kept: bytearray | None
    _owes_answers: bool
    _reading: bool
    _side: TrioSide
    _socket: socket.socket
    _unsent: bytes | bytearray
    _wire_bytes_out: int

    def _break(self, error: OSError) -> None:
        raise NotImplementedError

    def _poll(self) -> None:
        raise NotImplementedError

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
