"""What a handler holds: the public face of a connection, whatever carries it."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import anyio.abc
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from esockd_core._options import PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._tls_options import TlsOptions
    from esockd_proxyproto import ProxyHeader

State: TypeAlias = Literal["open", "closing", "closed"]

READ_BYTES: Final = 65_536  # asked of a socket at a time
NORMAL = "normal"
HANDLER_ERROR = "handler_error"
IDLE_TIMEOUT = "idle_timeout"
SEND_TIMEOUT = "send_timeout"
SHUTDOWN = "shutdown"
KILLED = "killed"
STUCK = "stuck"
ABORTED = "aborted"
RESET = "reset"
TLS_FAILED = "tls_failed"
HANDSHAKE_TIMEOUT = "handshake_timeout"

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

        Call it once the answer that agrees to TLS is sent; nothing may be received meanwhile, and what another task
        sends is kept and sent encrypted. Bytes that came and were not received yet count as the beginning of the
        handshake. So a plaintext command that somebody injected behind STARTTLS ends the connection: it is never taken
        for one that TLS protected.

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

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        """Begin to go on with TLS, in the middle of the connection (STARTTLS); for callback handlers.

        Call it once the answer that agrees to TLS is handed over. `CallbackHandler.tls_started` tells of the end of the
        handshake, and no `data_received` comes before it. A handshake that fails ends the connection: `connection_lost`
        gets the error, and the end counts as `tls_failed` or `handshake_timeout`.

        What is sent before the handshake is done is kept, and sent encrypted behind it. Closing before that throws it
        away: it never travels in the clear.

        Args:
            options: How to speak TLS; build them once, not for each connection.
            received: What `data_received` got beyond the command that asked for TLS: throw nothing away. It counts as
                the beginning of the handshake, as in `start_tls`.

        Raises:
            anyio.ClosedResourceError: This end is closed, or finished sending.
            anyio.BrokenResourceError: The peer is gone.
            RuntimeError: The connection has TLS already, or has begun with it, or its handler is a coroutine function.
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
        sockname, peername = self.sockname, self.peername
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: self._raw_socket().family,
            SocketAttribute.local_address: lambda: sockname,
            SocketAttribute.remote_address: lambda: peername,
            SocketAttribute.raw_socket: self._raw_socket,
        }
        if isinstance(sockname, tuple):
            attributes[SocketAttribute.local_port] = lambda: sockname[1]
        if isinstance(peername, tuple):  # a proxy may name the path of a Unix client
            attributes[SocketAttribute.remote_port] = lambda: peername[1]
        return attributes

    @abstractmethod
    def _raw_socket(self) -> socket.socket:
        """The socket.

        Raises:
            anyio.ClosedResourceError: It is closed, and its event loop has forgotten it.
        """


def name_of(address: Any) -> PeerName:
    """A socket address as (host, port), an IPv4-mapped one as IPv4; a Unix path as text, "" for none."""
    if isinstance(address, tuple):
        if len(address) == 2:
            return address
        host: str = address[0]
        return (host[7:] if host.startswith("::ffff:") and "." in host else host), address[1]
    return printable(address if isinstance(address, bytes) else os.fsencode(address or ""))


def printable(path: bytes) -> str:
    """A Unix path as text for names and logs: "@" for the NUL of an abstract one, escapes for what is no text."""
    text = path.decode(errors="backslashreplace").replace("\0", "@")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def as_bytes(data: object) -> bytes:
    """A copy of what somebody may change later: a bytearray, a memoryview, an array."""
    return data if isinstance(data, bytes) else bytes(memoryview(data))  # type: ignore[arg-type] # it says so itself


def bad_max_bytes(max_bytes: int) -> ValueError:
    """The error of asking for less than one byte: nothing received would look like the end of the stream."""
    return ValueError(f"max_bytes is {max_bytes}; receive() takes 1 or more")
