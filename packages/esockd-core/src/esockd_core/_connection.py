"""What a handler holds: the connection, whatever carries it.

The classes here are the public face and the part of the life of a connection that does not depend on the event loop.
`_transports` has one subclass for asyncio and one for trio.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import anyio.abc
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions
    from esockd_proxyproto import ProxyHeader

State: TypeAlias = Literal["open", "closing", "closed"]

READ_BYTES: Final = 65_536  # asked of a socket at a time
MAX_FAREWELLS: Final = 64  # refused sockets that are told why at one time; more are closed without a word
NORMAL = "normal"
HANDLER_ERROR = "handler_error"
IDLE_TIMEOUT = "idle_timeout"
SEND_TIMEOUT = "send_timeout"
SHUTDOWN = "shutdown"
KILLED = "killed"
STUCK = "stuck"
ABORTED = "aborted"
RESET = "reset"

TLS_CUT_SHORT = "the peer closed without saying so in TLS (close_notify): what it sent may have been cut short"


class Connection(anyio.abc.AsyncResource):
    """One peer of a listener, as its handler holds it.

    `async for data in connection` and `await connection.send(data)` work alike for every transport.

    Attributes:
        id: Unique in this process, counted from 1 in the order of admission.
        socket_peername: The peer of the socket: (host, port), or a path for a Unix socket, mostly empty.
        sockname: The listener's end, likewise.
        opened_at: Seconds since the epoch at admission.
        bytes_in: Bytes received so far.
        bytes_out: Bytes handed over for sending so far.
        draining: Whether the listener asked this connection to come to its end.
    """

    __slots__ = ()

    id: int
    socket_peername: PeerName
    sockname: PeerName
    opened_at: float
    bytes_in: int
    bytes_out: int
    draining: bool

    @property
    def peername(self) -> PeerName:
        """The client: the source that an accepted PROXY header names, otherwise the peer of the socket."""
        return self.socket_peername

    @property
    def proxy(self) -> ProxyHeader | None:
        """The PROXY header that came first; None where the listener takes none, or none came."""
        return None

    @property
    def tls(self) -> TlsInfo | None:
        """The TLS of the connection; None when its bytes travel in the clear."""
        return None

    @property
    @abstractmethod
    def state(self) -> State:
        """Where the connection is in its life."""

    @abstractmethod
    async def wait_draining(self) -> None:
        """Return once the listener asks this connection to come to its end."""

    def __aiter__(self) -> Self:
        """Iterate over what the peer sends, until it finishes."""
        return self

    @abstractmethod
    async def __anext__(self) -> bytes: ...

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for what the peer sends next."""

    @abstractmethod
    async def send(self, item: bytes) -> None:
        """Send to the peer."""

    @abstractmethod
    def send_nowait(self, data: bytes) -> None:
        """Hand over bytes for sending without waiting.

        Raises:
            anyio.WouldBlock: More than `write_limit_bytes` wait for the peer; nothing of `data` was taken.
            anyio.ClosedResourceError: This end is closed, or finished sending.
            anyio.BrokenResourceError: The peer is gone.
        """

    @abstractmethod
    def close_nowait(self, reason: str = NORMAL) -> None:
        """Begin the orderly close: what was handed over is still sent; the end counts under `reason`."""

    @abstractmethod
    def abort(self, reason: str = ABORTED) -> None:
        """Close at once, throwing away what was not sent; the end counts under `reason`."""


class StreamConnection(Connection, anyio.abc.ByteStream):
    """A connection that carries a stream of bytes: TCP, TLS and Unix sockets."""

    __slots__ = ()

    @abstractmethod
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Wait for bytes from the peer: at least one, at most `max_bytes`.

        A cancelled call loses no byte.

        Raises:
            anyio.EndOfStream: The peer finished sending.
            anyio.ClosedResourceError: This end is closed.
            anyio.BrokenResourceError: The connection was reset or timed out.
            anyio.BusyResourceError: Another task is receiving.
            ValueError: `max_bytes` is less than 1.
        """

    @abstractmethod
    async def send(self, item: bytes) -> None:
        """Send bytes; waits while more than `write_buffer_bytes` wait for the peer, before and after taking them.

        A call takes all its bytes or none. Cancelled before, it sent none of them; cancelled after, all of them are
        still sent. Calls of several tasks do not mix their bytes.

        Raises:
            anyio.ClosedResourceError: This end is closed, or finished sending.
            anyio.BrokenResourceError: The peer is gone, or took nothing for `send_timeout`.
        """

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        """Go on with TLS, in the middle of the connection (STARTTLS).

        Call it once the answer that agrees to TLS is sent; nothing may be received or sent meanwhile. Bytes that came
        and were not received yet count as the beginning of the handshake. So a plaintext command that somebody
        injected behind STARTTLS ends the connection: it is never taken for one that TLS protected.

        Args:
            options: How to speak TLS; build them once, not for each connection.
            received: What the handler received beyond the command that asked for TLS: throw nothing away.

        Raises:
            anyio.BrokenResourceError: The handshake failed, and the connection is closed as `tls_failed` or
                `handshake_timeout`.
            anyio.ClosedResourceError: This end is closed, or finished sending.
            anyio.BusyResourceError: Another task is receiving.
            RuntimeError: The connection has TLS already, or its handler is one of callbacks.

        A call that is cancelled closes the connection.
        """
        raise NotImplementedError

    @abstractmethod
    def pause_reading(self) -> None:
        """Stop calling `data_received`; for callback handlers."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Call `data_received` again; for callback handlers."""

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket attributes that AnyIO's own streams have."""
        raw = self._raw_socket()
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: raw.family,
            SocketAttribute.local_address: lambda: self.sockname,
            SocketAttribute.remote_address: lambda: self.peername,
            SocketAttribute.raw_socket: lambda: raw,
        }
        if raw.family in (socket.AF_INET, socket.AF_INET6):
            attributes[SocketAttribute.local_port] = lambda: self.sockname[1]
            attributes[SocketAttribute.remote_port] = lambda: self.peername[1]
        return attributes

    @abstractmethod
    def _raw_socket(self) -> socket.socket: ...


def name_of(address: Any) -> PeerName:
    """A socket address as (host, port), an IPv4-mapped one as IPv4; a Unix path as text, "" for none."""
    if isinstance(address, tuple):
        if len(address) == 2:
            return address
        host: str = address[0]
        return (host[7:] if host.startswith("::ffff:") and "." in host else host), address[1]
    return address.decode(errors="surrogateescape") if isinstance(address, bytes) else str(address or "")


def as_bytes(data: object) -> bytes:
    """A copy of what somebody may change later: a bytearray, a memoryview, an array."""
    return data if isinstance(data, bytes) else bytes(memoryview(data))  # type: ignore[arg-type] # it says so itself


def bad_max_bytes(max_bytes: int) -> ValueError:
    """The error of asking for less than one byte: nothing received would look like the end of the stream."""
    return ValueError(f"max_bytes is {max_bytes}; receive() takes 1 or more")


def _consists_of(error: BaseException, kinds: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_consists_of(each, kinds) for each in error.exceptions)
    return isinstance(error, kinds)


class Carried(StreamConnection):
    """What a listener itself asks of a connection; `_transports` has the two kinds of it.

    A connection is over when both its handler and its socket are: only then its place is free and its end counted.
    """

    __slots__ = ()

    counted_source: Hashable | None
    """The source that holds a place of `max_connections_per_source`."""
    moved_bytes: int
    moved_at: float
    _service: Service
    _error: Exception | None
    _eof: bool
    _closing: bool

    def _reason_for(self, error: BaseException) -> str:
        """The reason that what a handler raised is counted under; only its own errors are logged."""
        # A handler need not catch that its peer finished or went away, or that somebody closed the connection.
        if self._closing and _consists_of(error, (BrokenResourceError, ClosedResourceError)):
            return RESET if self._error is not None else NORMAL
        if self._eof and _consists_of(error, (EndOfStream,)):
            return NORMAL
        return self._service.handler_failed(self, error)

    @property
    def is_upgrading(self) -> bool:
        """Whether no handler has seen it yet: a PROXY header or a TLS handshake comes first."""
        return False

    def kill(self) -> None:
        """Close the socket at once and cancel the handler, because somebody said so."""
        self.abort(KILLED)
        self.cancel_handler(KILLED)

    @abstractmethod
    def unsent_bytes(self) -> int:
        """Bytes handed over that wait in this process for the peer."""

    def undelivered_bytes(self) -> int:
        """Bytes handed over that the peer's kernel has not acknowledged: here and in this kernel (tcp(7), SIOCOUTQ)."""
        try:
            queued = fcntl.ioctl(self._raw_socket().fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # closed under us
            return 0
        return self.unsent_bytes() + int.from_bytes(queued, sys.byteorder)

    @abstractmethod
    def abort_socket(self) -> None:
        """Close the socket at once; the handler finds out at its next call."""

    @abstractmethod
    def cancel_handler(self, reason: str) -> None:
        """Cancel the handler; may be called again and again until it has ended."""

    @abstractmethod
    def request_draining(self) -> None:
        """Tell the handler that the listener wants the connection to end."""

    @abstractmethod
    def handler_stack(self) -> str:
        """Where the handler is, as text for the log."""
