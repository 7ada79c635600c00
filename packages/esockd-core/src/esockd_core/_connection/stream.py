"""A stream connection: everything that is the same on every event loop and in memory.

An event loop only adds how bytes get in and out: `_take` and `_input_waiter`, `_hand_over` and `_wait_room`,
`_finish_sending`, `_begin_close` and `close_socket`. Every rule about them is here, once; for speed, asyncio writes
`_receive` and `_write` out.
"""

from __future__ import annotations

import socket
import struct
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, WouldBlock
from anyio.lowlevel import checkpoint

from esockd_core._connection.driven import DrivenConnection, check_reason, consists_of
from esockd_core._connection.names import as_bytes, text_of_name
from esockd_core._connection.receiving import YIELD_EVERY, Receiving
from esockd_core._errors import InvalidOption, MessageCutShort, MessageTooLong
from esockd_core._options.tls import TlsOptions
from esockd_core._platform.socket_queues import undelivered_bytes, unread_bytes
from esockd_core._stats.reasons import ABORTED, CUT_SHORT, MESSAGE_TOO_LONG, NORMAL, RESET, TLS_FAILED

if TYPE_CHECKING:
    from esockd_core._connection.buffer import Unread
    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.site import Site
    from esockd_core._tls.facts import TlsInfo

MAX_FAREWELLS: Final = 64  # sent at one time; further refused sockets are closed without one
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with timeout 0, socket(7)


class StreamBase(DrivenConnection, Receiving):
    """A connection of a stream socket and its driver; see `DrivenConnection`."""

    __slots__ = ("_chunk", "_eof", "_eof_sent", "_more", "_write_paused")

    def __init__(self, site: Site, driver: AnyDriver) -> None:
        DrivenConnection.__init__(self, site, driver)  # half the cost of super(), for each connection
        self._chunk: bytes | bytearray | Unread | None = None  # received, and not taken by the handler
        self._more: bytes | bytearray | None = None  # what came after it
        self._eof = False
        self._eof_sent = False
        self._write_paused = False

    # Receiving

    def _is_received(self) -> bool:
        return self.driver.receives

    def put_back(self, data: bytes) -> None:
        """Keep the bytes after a PROXY header for the handler."""
        self.bytes_in += len(data)
        self._buffer(data)

    def deliver_buffered(self) -> None:
        """Give callbacks the bytes that were kept for them before they started."""

    def pause_reading(self) -> None:
        self._require_callbacks()
        self._pause_input()

    def resume_reading(self) -> None:
        self._require_callbacks()
        self._resume_input()

    def _require_callbacks(self) -> None:
        if self.driver.receives:
            raise RuntimeError("a coroutine handler pauses reading by not calling receive()")

    @abstractmethod
    def _pause_input(self) -> None:
        """Stop reading from the socket."""

    @abstractmethod
    def _resume_input(self) -> None:
        """Read from the socket again."""

    # Sending

    async def send(self, item: bytes) -> None:
        if self._unyielded >= YIELD_EVERY or self._write_paused or self._may_be_cancelled():
            await self._checkpoint()
            if self._write_paused:  # by what a cancelled send left, or another task's
                await self._wait_writable()
        else:
            self._unyielded += 1
        self._write(item)
        if self._write_paused:
            await self._wait_writable()

    def send_nowait(self, data: bytes) -> None:
        if self._write_paused and not self._closing:
            data = as_bytes(data)
            if self.unsent_bytes() + len(data) > self._site.options.write_limit_bytes:
                raise WouldBlock
        self._write(data)

    async def send_eof(self) -> None:
        if self._closing:
            raise self._closed_error()
        if not self._eof_sent:
            self._eof_sent = True
            self._finish_sending()
        await checkpoint()

    def _write(self, data: bytes) -> None:
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if type(data) is not bytes:
            data = as_bytes(data)  # the socket may keep what it is given, and its owner may change it
        self.bytes_out += len(data)
        self._hand_over(data)

    @abstractmethod
    def _hand_over(self, data: bytes) -> None:
        """Give bytes to the socket, or keep them until the socket has room.

        Raises:
            anyio.BrokenResourceError: If the peer is gone.
        """

    @abstractmethod
    def _finish_sending(self) -> None:
        """Finish sending, once everything is sent."""

    def _pause_writing(self, *, paused: bool) -> None:
        """Note that more than `write_buffer_bytes` wait for the peer, or that they no longer do."""
        if paused is self._write_paused:
            return
        self._write_paused = paused
        if paused:
            self._site.watch.sending.setdefault(self, (self.taken_bytes(), self.now()))
        else:
            self._wake_senders()
        if not self._closing:
            (self.driver.writing_paused if paused else self.driver.writing_resumed)(self)

    async def _wait_writable(self) -> None:
        while self._write_paused and not self._closing:
            await self._wait_room()
        if self._closing:
            raise self._closed_error()

    @abstractmethod
    async def _wait_room(self) -> None:
        """Return when `_wake_senders` is called."""

    @abstractmethod
    def _wake_senders(self) -> None:
        """Let the tasks in `_wait_room` go on."""

    # TLS, in the middle of the connection

    def _require_plain(self, options: TlsOptions, received: bytes) -> bytes:
        """Check that TLS can begin, and return a copy of the bytes received after the command.

        Raises:
            InvalidOption: If the options are not `TlsOptions`.
            TypeError: If `received` is not bytes.
        """
        given: object = options
        if not isinstance(given, TlsOptions):
            raise InvalidOption("start_tls takes TlsOptions", option="options", value=given)
        data = as_bytes(received)
        if self._closing or self._eof_sent:
            raise self._closed_error()
        if self._has_tls():
            raise RuntimeError("the connection has TLS already")
        return data

    @abstractmethod
    def _has_tls(self) -> bool:
        """Whether its bytes are encrypted, or a handshake has begun."""

    def _require_style(self, *, receives: bool) -> None:
        if self.driver.receives is not receives:
            raise RuntimeError(
                "start_tls() is for coroutine handlers; callbacks use start_tls_nowait()"
                if receives
                else "start_tls_nowait() is for callback handlers; coroutines await start_tls()"
            )

    def _tls_refused(self, why: str) -> None:
        """A handshake in the middle of the connection failed."""
        if not self._closing:
            self._error = ConnectionAbortedError(why)
            self.close_nowait(TLS_FAILED)

    # Its end

    def reason_for(self, error: BaseException) -> str:
        """The reason that a handler's exception counts under. Only errors of its own are logged."""
        for kind, reason in ((MessageCutShort, CUT_SHORT), (MessageTooLong, MESSAGE_TOO_LONG)):
            if consists_of(error, (kind,)):
                self._site.registry.peer_failed(self, error, reason)
                return reason
        # A handler need not catch that its peer finished or went away, or that somebody closed the connection.
        if self._closing and consists_of(error, (BrokenResourceError, ClosedResourceError)):
            return RESET if self._error is not None else NORMAL
        if self._eof and consists_of(error, (EndOfStream,)):
            return NORMAL
        return self._site.registry.handler_failed(self, error)

    def _handler_ended(self, reason: str, cancelled: bool = False) -> None:
        if self._lost:
            self.ended(reason)
        elif cancelled:
            self.cut_short(reason)
        else:
            self.close_nowait(reason)

    def ended(self, reason: str) -> None:
        if self.id:
            self._site.registry.ended(self, self._reason or reason)

    def fail(self, error: Exception) -> None:
        """Close the socket because of an error."""
        self._error = self._error or error
        self.close_socket()

    def close_nowait(self, reason: str = NORMAL) -> None:
        if reason != NORMAL:
            check_reason(reason)
            self._reason = self._reason or reason
        if not self._closing:
            self._stop_handler_io()
            self._begin_close()

    def _stop_handler_io(self) -> None:
        self._closing = True
        self._chunk = self._more = None
        if self._receiver is not None:
            self._wake_receiver()
        if self._write_paused:
            self._wake_senders()

    @abstractmethod
    def _begin_close(self) -> None:
        """Begin the orderly close.

        Closing a socket that holds unread input makes the kernel reset the connection, and what was sent last may be
        lost with it. So: flush, finish sending, read on until the peer finishes too, then close; the sweeper bounds it.
        """

    def cut_short(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._closing:
            return
        if self._eof_sent:  # the handler had said everything
            self.close_nowait()
        elif not self.undelivered_bytes():
            self.abort()
        else:
            self._error = self._error or ConnectionAbortedError(f"cut short by the listener: {reason}")
            self._stop_handler_io()
            self._read_on()
            self._site.watch.closing[self] = (-1, self.now())
            self._site.watch.cut.add(self)

    def _read_on(self) -> None:
        """Have the peer's end noticed, though the handler reads no more."""

    def abort(self, reason: str = ABORTED) -> None:
        check_reason(reason)
        self._reason = self._reason or reason
        if reason != ABORTED and self._error is None:
            self._error = ConnectionAbortedError(f"aborted by the listener: {reason}")
        self.break_off()

    def break_off(self, reason: str = NORMAL) -> None:
        """Reset the connection, because the stream that it relays was cut short. Its end counts under `reason`."""
        if reason != NORMAL:
            self.note_reason(reason)
        if not self._lost:
            self._reset_at_close()
            self.close_socket()

    def _reset_at_close(self) -> None:
        """Have the close of the socket reset the connection: the peer may not have the whole stream."""
        with suppress(OSError, ClosedResourceError):  # the peer may be gone already
            self._raw_socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)

    def refuse(self, how: str | bytes) -> None:
        """Turn the peer away before any handler sees it: with a farewell, with a reset, or by closing."""
        self._closing = True
        if isinstance(how, bytes):
            farewells = self._site.watch.farewells
            if len(farewells) < MAX_FAREWELLS:
                farewells.add(self)
                with suppress(BrokenResourceError):  # the peer may be gone already
                    self._hand_over(how)
                    self._begin_close()
                return
        elif how == "rst":
            self._reset_at_close()
        self.close_socket()

    def _taken_by_handler(self) -> int:
        return self.bytes_in - self._buffered_bytes()

    def _has_untaken(self) -> bool:
        return self._chunk is not None

    # Its bytes

    @abstractmethod
    def unsent_bytes(self) -> int:
        """Bytes handed over that still wait in this process."""

    def wire_bytes_out(self) -> int:
        return self.bytes_out

    def taken_bytes(self) -> int:
        return self.wire_bytes_out() - self.undelivered_bytes()

    def undelivered_bytes(self) -> int:
        try:
            return self.unsent_bytes() + undelivered_bytes(self._raw_socket())
        except ClosedResourceError:
            return 0

    def has_unread_input(self) -> bool:
        if self._chunk is not None and self._receiver is None:
            return True  # otherwise the handler has seen it, and waits for the rest of a message
        try:
            return unread_bytes(self._raw_socket()) > 0
        except ClosedResourceError:
            return False

    # Looking at it

    @property
    def has_finished(self) -> bool:
        return self._eof

    @property
    def tls(self) -> TlsInfo | None:
        return self._own_tls() or (None if self.client is None else self.client.tls)

    @abstractmethod
    def _own_tls(self) -> TlsInfo | None:
        """The TLS of this connection that ends in this process; None without."""

    def __repr__(self) -> str:
        peer = text_of_name(self.peername) if self.id else "a peer that was not admitted"
        moved = f"{self.bytes_in} bytes in, {self.bytes_out} out"
        return f"<StreamConnection {self.id} of {self._site.name!r} from {peer}: {self.state}, {moved}>"
