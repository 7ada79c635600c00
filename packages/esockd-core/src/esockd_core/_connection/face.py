"""The public face of a connection, which a handler holds, for every kind of transport."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import anyio.abc
from anyio.abc import SocketAttribute

from esockd_core._connection.names import is_abstract
from esockd_core._stats.reasons import ABORTED, NORMAL

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractContextManager

    from esockd_core._options.listener import PeerName
    from esockd_core._options.tls import TlsOptions
    from esockd_core._tls.facts import TlsInfo
    from esockd_proxyproto import ProxyHeader

State: TypeAlias = Literal["open", "closing", "closed"]

READ_BYTES: Final = 65_536  # asked of a socket at a time
TLS_CUT_SHORT = "the peer closed without saying so in TLS (close_notify): what it sent may have been cut short"


class Connection(anyio.abc.AsyncResource):
    """A connection of a listener, as its handler holds it.

    `async for data in connection` and `await connection.send(data)` work the same for every transport.

    Attributes:
        id: Unique in this process, counted from 1 in the order of admission.
        socket_peername: The peer of the socket: (host, port), or a path for a Unix socket, mostly empty.
        sockname: The listener's end, in the same form.
        opened_at: Seconds since the epoch at admission.
        bytes_in: Bytes received so far.
        bytes_out: Bytes handed over for sending so far.
        draining: Whether the listener has asked this connection to end.
        user_data: One object of yours, such as a session; None at first. It lives as long as the connection object. It
            costs 8 bytes a connection, plus the object itself.
    """

    __slots__ = ()

    id: int
    socket_peername: PeerName
    sockname: PeerName
    opened_at: float
    bytes_in: int
    bytes_out: int
    draining: bool
    user_data: Any

    @property
    def peername(self) -> PeerName:
        """The client, which is the source that an accepted PROXY header names, otherwise the peer of the socket."""
        return self.socket_peername

    @property
    def proxy(self) -> ProxyHeader | None:
        """The PROXY header of the connection; None if the listener takes none, or none came."""
        return None

    @property
    def tls(self) -> TlsInfo | None:
        """The TLS of the connection; None when its bytes are not encrypted."""
        return None

    @property
    @abstractmethod
    def state(self) -> State:
        """The state of the connection."""

    @property
    @abstractmethod
    def receive_timeout(self) -> float | None:
        """The number of seconds without a byte from the peer after which the connection is reset.

        It begins as the listener's option. A handler may set another one for its connection, such as one and a half
        times the keepalive that an MQTT client announced. None is no limit. Setting it starts the time again. The time
        does not run while bytes wait to be read, or after the peer has finished sending. It takes no timer: it may fire
        up to 12.5 % late, plus the time until the next look of the listener, of which there are about ten a second. The
        end counts as `receive_timeout`.

        Raises:
            InvalidOption: If a time is set that is not more than 0.
        """

    @receive_timeout.setter
    @abstractmethod
    def receive_timeout(self, timeout: float | None) -> None: ...

    @abstractmethod
    async def wait_draining(self) -> None:
        """Return once the listener asks this connection to end."""

    @abstractmethod
    def until_draining(self) -> AbstractContextManager[anyio.CancelScope, bool]:
        """Make a scope that cancels its body when the listener asks this connection to end.

        Nothing that was received is lost. A body that is waiting for its next message is cancelled at once, and so is a
        body that has received nothing since it entered. A body that is handling a message finishes that, and is
        cancelled when it waits for the next one. A call of `receive_exactly`, `receive_until` or `lines` that has a
        part of its message waits for the rest. A body that is entered while draining is cancelled at its first wait,
        unless there is input for it.

        It is for coroutine handlers only, and bounded by `shutdown_timeout`. It costs a cancel scope of AnyIO.

        Raises:
            RuntimeError: If the handler is a `CallbackHandler`.
        """

    def __aiter__(self) -> Self:
        """Iterate over the bytes that the peer sends, until it finishes."""
        return self

    @abstractmethod
    async def __anext__(self) -> bytes: ...

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for the next bytes of the peer."""

    @abstractmethod
    async def send(self, item: bytes) -> None:
        """Send to the peer."""

    @abstractmethod
    def send_nowait(self, data: bytes) -> None:
        """Hand over bytes for sending without waiting.

        Raises:
            anyio.WouldBlock: If more than `write_limit_bytes` would wait for the peer. Nothing of `data` was taken.
            anyio.ClosedResourceError: If this end is closed, or finished sending.
            anyio.BrokenResourceError: If the peer is gone.
        """

    @abstractmethod
    def close_nowait(self, reason: str = NORMAL) -> None:
        """Begin the orderly close: everything handed over is still sent. The end counts under `reason`."""

    @abstractmethod
    def abort(self, reason: str = ABORTED) -> None:
        """Reset the connection and drop the bytes that were not sent. The end counts under `reason`."""


class StreamConnection(Connection, anyio.abc.ByteStream):
    """A connection that carries a stream of bytes: TCP, TLS and Unix sockets."""

    __slots__ = ()

    @abstractmethod
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Wait for bytes from the peer: at least one, at most `max_bytes`.

        A cancelled call loses no byte.

        Raises:
            anyio.EndOfStream: If the peer finished sending.
            anyio.ClosedResourceError: If this end is closed.
            anyio.BrokenResourceError: If the connection was reset or timed out.
            anyio.BusyResourceError: If another task is receiving.
            ValueError: If `max_bytes` is less than 1.
        """

    @abstractmethod
    async def receive_exactly(self, count: int, *, mid_message: bool = False) -> bytes:
        """Wait for `count` bytes from the peer, and take them once all of them have come.

        A call that is cancelled or fails has taken nothing. The connection holds up to `count` bytes meanwhile, so
        check a length that the peer gives first. When all of them are here already, only every 256th call looks for a
        cancellation.

        Args:
            count: The number of bytes, 0 or more.
            mid_message: Whether they continue a message that was taken in part, as a body after its header. Then a peer
                that leaves before the first of them has not ended in order.

        Raises:
            anyio.EndOfStream: If the peer finished sending, and all bytes were received.
            MessageCutShort: If the peer finished sending before the last of them. A handler need not catch it: the
                connection ends as `cut_short`, which is logged as INFO.
            anyio.ClosedResourceError: If this end is closed.
            anyio.BrokenResourceError: If the connection was reset or timed out.
            anyio.BusyResourceError: If another task is receiving.
            ValueError: If `count` is less than 0.
        """

    @abstractmethod
    async def receive_until(self, delimiter: bytes, max_bytes: int, *, mid_message: bool = False) -> bytes:
        r"""Wait for a message that ends with a delimiter, take both, and return the message.

        A call that is cancelled or fails has taken nothing.

        Args:
            delimiter: The end of the message, such as `b"\r\n"`.
            max_bytes: The most that the message may have, without the delimiter.
            mid_message: See `receive_exactly`.

        Raises:
            anyio.EndOfStream: If the peer finished sending, and all bytes were received.
            MessageCutShort: If the peer finished sending before the delimiter; see `receive_exactly`.
            MessageTooLong: If there is no delimiter within `max_bytes`. A handler need not catch it: the connection
                ends as `message_too_long`.
            anyio.ClosedResourceError: If this end is closed.
            anyio.BrokenResourceError: If the connection was reset or timed out.
            anyio.BusyResourceError: If another task is receiving.
            ValueError: If `max_bytes` is less than 1, or the delimiter is empty.
        """

    @abstractmethod
    def lines(self, max_bytes: int = 65_536) -> AsyncIterator[bytes]:
        r"""Iterate over the lines that the peer sends, without their ends (`\n` or `\r\n`), until it finishes.

        Lines that were not asked for yet stay in the connection, for the next call that receives.

        Args:
            max_bytes: The most bytes of a line, including a `\r` before its end.

        Raises:
            ValueError: If `max_bytes` is less than 1.

        Each step raises what `receive_until` raises, but an orderly end ends the iteration.
        """

    @abstractmethod
    async def send(self, item: bytes) -> None:
        """Send bytes. Waits while more than `write_buffer_bytes` wait for the peer, before and after taking the bytes.

        A call takes all its bytes or none. If it is cancelled before that, none are sent; if after, all are still sent.
        Bytes of several tasks are not mixed.

        Raises:
            anyio.ClosedResourceError: If this end is closed, or finished sending.
            anyio.BrokenResourceError: If the peer is gone, or took nothing for `send_timeout`.
        """

    async def start_tls(self, options: TlsOptions, received: bytes = b"") -> None:
        """Start TLS in the middle of the connection (STARTTLS).

        Call it once the answer that agrees to TLS is sent. Nothing may be received meanwhile. Bytes that another task
        sends are kept and sent encrypted. Bytes that came and were not received yet count as the beginning of the
        handshake, so a plaintext command that an attacker injects after STARTTLS ends the connection. It is never taken
        for a command that TLS protected.

        Args:
            options: The TLS options; build them once, not for each connection.
            received: All bytes that the handler received after the command that asked for TLS.

        Raises:
            anyio.BrokenResourceError: If the handshake failed, and the connection is closed as `tls_failed` or
                `handshake_timeout`.
            anyio.ClosedResourceError: If this end is closed, or finished sending.
            anyio.BusyResourceError: If another task is receiving.
            RuntimeError: If the connection has TLS already, or has a `CallbackHandler`.

        A call that is cancelled closes the connection.
        """
        raise NotImplementedError

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        """Begin TLS in the middle of the connection (STARTTLS); for callback handlers.

        Call it once the answer that agrees to TLS is handed over. `CallbackHandler.tls_started` is called when the
        handshake is done, and `data_received` is not called before that. A handshake that fails ends the connection:
        `connection_lost` gets the error, and the end counts as `tls_failed` or `handshake_timeout`.

        Bytes that are sent before the handshake is done are kept and then sent encrypted. If the connection is closed
        before that, they are dropped. They never travel in the clear.

        Args:
            options: The TLS options; build them once, not for each connection.
            received: All bytes that `data_received` got after the command that asked for TLS. They count as the
                beginning of the handshake, as in `start_tls`.

        Raises:
            anyio.ClosedResourceError: If this end is closed, or finished sending.
            anyio.BrokenResourceError: If the peer is gone.
            RuntimeError: If the connection has TLS already, or has begun with it, or its handler is a coroutine
                function.
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
            SocketAttribute.local_address: lambda: (
                self._raw_socket().getsockname() if is_abstract(sockname) else sockname
            ),
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
            anyio.ClosedResourceError: If it is closed and its event loop has dropped it.
        """
