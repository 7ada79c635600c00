"""A connection as its listener sees it, and the part of its life that is the same on every event loop."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.lowlevel import checkpoint

from esockd_core._connection import ABORTED, HANDSHAKE_TIMEOUT, KILLED, NORMAL, RESET, TLS_FAILED, StreamConnection

if TYPE_CHECKING:
    from collections.abc import Hashable

    from esockd_core._connection import State
    from esockd_core._options import PeerName
    from esockd_core._relay import Forwarding
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions

YIELD_EVERY: Final = 32  # operations that did not block, before the other connections get their turn
MAX_FAREWELLS: Final = 64  # refused sockets that are told why at one time; more are closed without a word
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with timeout 0, socket(7)


class Carried(StreamConnection):
    """What a listener itself asks of a connection; `_transports` has the two kinds of it.

    A connection is over when both its handler and its socket are: only then its place is free and its end counted.

    Attributes:
        counted_source: The source that holds a place of `max_connections_per_source`.
        moved_bytes: Bytes received and taken by the peer when last looked at; -1 before the first look.
        moved_at: When they were last seen to change, by the event loop's clock.
    """

    __slots__ = (
        "_closing",
        "_draining_event",
        "_eof",
        "_eof_sent",
        "_error",
        "_lost",
        "_reason",
        "_service",
        "_unyielded",
        "bytes_in",
        "bytes_out",
        "counted_source",
        "draining",
        "id",
        "moved_at",
        "moved_bytes",
        "opened_at",
        "socket_peername",
    )

    socket_peername: PeerName
    opened_at: float

    def __init__(self, service: Service) -> None:
        self._service = service
        self._draining_event: anyio.Event | None = None
        self._error: Exception | None = None
        self._reason: str | None = None
        self._eof = False
        self._eof_sent = False
        self._closing = False
        self._lost = False
        self._unyielded = 0
        self.id = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.counted_source: Hashable | None = None
        self.moved_bytes = -1  # the first look by `sweep_all` starts its idle time
        self.moved_at = 0.0
        self.draining = False

    # Its beginning

    def _start(self) -> None:
        """Call the handler."""
        raise NotImplementedError

    def _refuse(self, how: str | bytes) -> None:
        """Turn the peer away, before any handler heard of it: with a last word, with a reset, or just so."""
        self._closing = True
        if isinstance(how, bytes) and len(self._service.farewells) < MAX_FAREWELLS:
            self._service.farewells.add(self)
            with suppress(BrokenResourceError):  # the peer may be gone already
                self._hand_over(how)
                self._begin_close()
            return
        if how == "rst":
            self._reset_at_close()
        self.abort_socket()

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:  # noqa: ARG002
        raise RuntimeError("start_tls_nowait() is for callback handlers; coroutines await start_tls()")

    def handshake_timed_out(self) -> None:
        """The time for the TLS handshake is over."""
        self.abort(HANDSHAKE_TIMEOUT)

    def _tls_refused(self, why: str) -> None:
        """A handshake in the middle of the connection failed."""
        if not self._closing:
            self._error = ConnectionAbortedError(why)
            self.close_nowait(TLS_FAILED)

    # Its end

    @property
    def state(self) -> State:
        return "closed" if self._lost else "closing" if self._closing else "open"

    def _closed_error(self) -> Exception:
        if self._error is not None:
            error = BrokenResourceError(str(self._error))
            error.__cause__ = self._error
            return error
        return ClosedResourceError()

    def _reason_for(self, error: BaseException) -> str:
        """The reason that what a handler raised is counted under; only its own errors are logged."""
        # A handler need not catch that its peer finished or went away, or that somebody closed the connection.
        if self._closing and _consists_of(error, (BrokenResourceError, ClosedResourceError)):
            return RESET if self._error is not None else NORMAL
        if self._eof and _consists_of(error, (EndOfStream,)):
            return NORMAL
        return self._service.handler_failed(self, error)

    def _handler_ended(self, reason: str) -> None:
        if self._lost:
            self._service.stopped(self, self._reason or reason)
        else:
            self.close_nowait(reason)

    async def send_eof(self) -> None:
        if self._closing:
            raise self._closed_error()
        self._finish_sending()
        await checkpoint()

    def close_nowait(self, reason: str = NORMAL) -> None:
        if reason != NORMAL:
            self._reason = self._reason or reason
        if not self._closing:
            self._closing = True
            self._begin_close()

    @abstractmethod
    def _begin_close(self) -> None:
        """Begin the orderly close.

        Closing a socket that holds unread input makes the kernel reset the connection, and what was sent last may be
        lost with it. So: flush, finish sending, read on until the peer finishes too, then close; `sweep` bounds it.
        """

    async def aclose(self) -> None:
        self.close_nowait()
        await checkpoint()

    def abort(self, reason: str = ABORTED) -> None:
        self._reason = self._reason or reason
        if reason != ABORTED and self._error is None:
            self._error = ConnectionAbortedError(f"aborted by the listener: {reason}")
        self.abort_socket()

    def cut(self, reason: str) -> None:
        """Abort, and have the peer see a reset: what it has may not be all there was."""
        if not self._closing:
            self._reset_at_close()
        self.abort(reason)

    def reset(self, reason: str = NORMAL) -> None:
        """Close at once, throwing away what was not sent, and have the peer see a reset: this was no orderly end."""
        if reason != NORMAL:
            self._reason = self._reason or reason
        if not self._closing:
            self._reset_at_close()
        self.abort_socket()

    def _reset_at_close(self) -> None:
        with suppress(OSError):  # the peer may be gone already
            self._raw_socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)

    @abstractmethod
    def abort_socket(self) -> None:
        """Close the socket at once; the handler finds out at its next call."""

    def kill(self) -> None:
        """Close the socket at once and cancel the handler, because somebody said so."""
        self.cut(KILLED)
        self.cancel_handler(KILLED)

    def cancel_handler(self, reason: str) -> None:
        """Cancel the handler; may be called again and again until it has ended."""
        raise NotImplementedError

    def request_draining(self) -> None:
        """Tell the handler that the listener wants the connection to end."""
        if not self.draining:
            self.draining = True
            if self._draining_event is not None:
                self._draining_event.set()

    async def wait_draining(self) -> None:
        if self._draining_event is None:
            self._draining_event = anyio.Event()
            if self.draining:
                self._draining_event.set()
        await self._draining_event.wait()

    # Its bytes

    @abstractmethod
    def _hand_over(self, data: bytes) -> None:
        """Give bytes to the socket, or keep them until it has room.

        Raises:
            anyio.BrokenResourceError: The peer is gone, and the socket is closed.
        """

    @abstractmethod
    def _finish_sending(self) -> None:
        """Say that no more will be sent, once everything is."""

    @abstractmethod
    def unsent_bytes(self) -> int:
        """Bytes handed over that wait in this process for the peer."""

    def undelivered_bytes(self) -> int:
        """Bytes handed over that the peer's kernel has not acknowledged: here and in this kernel (tcp(7), SIOCOUTQ)."""
        try:
            queued = fcntl.ioctl(self._raw_socket().fileno(), termios.TIOCOUTQ, bytes(4))
        except (ClosedResourceError, OSError, ValueError):  # closed under us
            return 0
        return self.unsent_bytes() + int.from_bytes(queued, sys.byteorder)

    # Looking at it

    @property
    def service(self) -> Service:
        """What the connections of its listener share."""
        return self._service

    def forwarding(self) -> Forwarding:
        """What connects it with an upstream."""
        raise TypeError(f"only connections with a socket can be forwarded, and {self!r} has none")

    @property
    def has_finished(self) -> bool:
        """Whether the peer finished sending."""
        return self._eof

    @property
    def end_reason(self) -> str | None:
        """What its end will count under, where somebody has said so."""
        return self._reason

    @property
    def awaits_source(self) -> bool:
        """Whether a PROXY header is still to name its client, who is judged then."""
        return False

    @property
    def is_upgrading(self) -> bool:
        """Whether no handler has seen it yet: a PROXY header or a TLS handshake comes first."""
        return False

    @abstractmethod
    def handler_stack(self) -> str:
        """Where the handler is, as text for the log."""


def _consists_of(error: BaseException, kinds: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_consists_of(each, kinds) for each in error.exceptions)
    return isinstance(error, kinds)
