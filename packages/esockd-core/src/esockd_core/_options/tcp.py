"""Options of the TCP sockets of a listener, set once on the listening socket.

On Linux a connection inherits every option below from its listener at the moment of the handshake (sk_clone in the
kernel; tcp(7) names some of them), so accepting costs no system call for them. Unix sockets inherit nothing.
"""

from __future__ import annotations

import logging
import socket
import struct
from dataclasses import dataclass, fields

from esockd_core._errors import InvalidOption
from esockd_core._options.table import check_options
from esockd_core._platform.socket_limits import backlog_limit, granted_buffer_bytes
from esockd_core._platform.tcp_options import NAMES, has_tcp_option, tcp_option

logger = logging.getLogger("esockd_core")

FOR_UNIX = frozenset({"backlog", "receive_buffer_bytes", "send_buffer_bytes", "tune_buffer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    """Options of a TCP listener and its connections. `backlog` and the buffers hold for Unix sockets too.

    Attributes:
        backlog: How many connections may wait to be accepted. The kernel caps it at net.core.somaxconn (listen(2)).
        reuse_address: Bind although connections of an earlier listener linger in TIME_WAIT (SO_REUSEADDR).
        reuse_port: Let several sockets of one user share the port, each with its own queue (SO_REUSEPORT).
        nodelay: Send small segments at once (TCP_NODELAY).
        receive_buffer_bytes: The size of the kernel's receive buffer; None lets the kernel choose (SO_RCVBUF). The
            kernel doubles it for its own bookkeeping and caps it at net.core.rmem_max.
        send_buffer_bytes: The size of the kernel's send buffer; None lets the kernel choose (SO_SNDBUF,
            net.core.wmem_max).
        tune_buffer: Read as much at a time as the kernel's buffers hold. This saves wake-ups in bulk transfers and
            costs memory for each connection.
        keepalive: Probe connections on which nothing arrives (SO_KEEPALIVE). Otherwise a peer that vanished without a
            word would keep its place for ever. The default times are those of Go's `net.ListenConfig`, which notice it
            after 150 seconds; with Linux's own it takes more than two hours.
        keepalive_idle_timeout: How many whole seconds of silence come before the first probe, 1 to 32767; None is the
            system's setting. This option and the next two do nothing while `keepalive` is off.
        keepalive_interval: How many whole seconds lie between probes, 1 to 32767; None is the system's setting.
        keepalive_count: How many unanswered probes end the connection, 1 to 127; None is the system's setting.
        user_timeout: How many seconds sent data may stay unacknowledged before the kernel gives up the connection
            (TCP_USER_TIMEOUT, RFC 5482), to the millisecond; None is the system's setting.
        reset_on_close: Reset connections at close and drop what was not sent, instead of closing in order (SO_LINGER
            with 0 seconds). Longer times are not supported, because close(2) would block the event loop.
        defer_accept_timeout: For how many whole seconds the kernel holds back a connection until its first data
            arrives (TCP_DEFER_ACCEPT); None hands it over at once. Not for protocols in which the server speaks first.

    Raises:
        InvalidOption: If a value is not allowed.
    """

    backlog: int = 1024
    reuse_address: bool = True
    reuse_port: bool = False
    nodelay: bool = True
    receive_buffer_bytes: int | None = None
    send_buffer_bytes: int | None = None
    tune_buffer: bool = False
    keepalive: bool = True
    keepalive_idle_timeout: int | None = 15
    keepalive_interval: int | None = 15
    keepalive_count: int | None = 9
    user_timeout: float | None = None
    reset_on_close: bool = False
    defer_accept_timeout: int | None = None

    def __post_init__(self) -> None:
        check_options("tcp", self)
        for field in fields(self):  # a default that this system does not have is left to it
            if field.name in NAMES and (value := getattr(self, field.name)) not in (None, field.default):
                tcp_option(field.name, value)

    def require_only(self, names: frozenset[str], what: str) -> None:
        """Refuse options that would silently do nothing.

        Args:
            names: The options that apply.
            what: What they apply to, for the message.

        Raises:
            InvalidOption: If another option differs from its default.
        """
        for field in fields(self):
            if field.name not in names and getattr(self, field.name) != field.default:
                others = f", which take only {', '.join(sorted(names))}" if names else ""
                reason = f"it does not apply to {what}{others}"
                raise InvalidOption(reason, option=f"tcp.{field.name}", value=getattr(self, field.name))

    def apply_to_listener(self, sock: socket.socket) -> None:
        """Set everything but the backlog and what must precede bind(2) on a TCP or Unix stream socket.

        Best called before listen(2): the receive buffer decides the window scale of the handshake.

        Raises:
            InvalidOption: If an option is set that does not apply to a Unix socket.
            OSError: If the kernel refuses an option.
        """
        if sock.family == socket.AF_UNIX:
            self.require_only(FOR_UNIX, "Unix sockets")
            self._set_buffers(sock)
            return
        self._set_buffers(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self.nodelay)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self.keepalive)
        for name in NAMES:
            if name.startswith("keepalive_") and not self.keepalive:
                continue
            if (value := getattr(self, name)) is not None and has_tcp_option(name):
                in_ms = name == "user_timeout"
                sock.setsockopt(socket.IPPROTO_TCP, tcp_option(name, value), round(value * 1000) if in_ms else value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", self.reset_on_close, 0))

    def apply_to_connection(self, sock: socket.socket) -> None:
        """Set on an accepted socket what it did not inherit; no system call with the defaults.

        Call it after the event loop made its transport: asyncio and uvloop turn TCP_NODELAY on by themselves, which
        `nodelay=False` has to undo.
        """
        if sock.family == socket.AF_UNIX:
            self._set_buffers(sock)
        elif not self.nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, False)

    def read_chunk_bytes(self, sock: socket.socket, default_bytes: int) -> int:
        """How much to read from a connection at a time: `tune_buffer` makes it as large as the kernel's buffers.

        Args:
            sock: The listening socket, whose buffers are those its connections start with.
            default_bytes: What to read without `tune_buffer`, and at least with it.
        """
        if not self.tune_buffer:
            return default_bytes
        sizes = [sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)]
        return max(default_bytes, *sizes)

    def warn_of_capped_backlog(self) -> None:
        """Log a warning when the kernel makes the backlog smaller (net.core.somaxconn); call it after listen(2)."""
        cap = backlog_limit()
        if cap is not None and self.backlog > cap:
            logger.warning(
                "backlog %d is capped by the kernel to %d; raise net.core.somaxconn to change that", self.backlog, cap
            )

    def warn_of_capped_buffers(self, sock: socket.socket) -> None:
        """Log a warning when the kernel gave a listening socket smaller buffers than asked for."""
        for name, option, wanted, setting in self._buffers():
            if wanted is not None and (granted := granted_buffer_bytes(sock, option)) < wanted:
                logger.warning("%s %d is capped by the kernel to %d; raise %s", name, wanted, granted, setting)

    def _set_buffers(self, sock: socket.socket) -> None:
        for _, option, wanted, _ in self._buffers():
            if wanted is not None:
                sock.setsockopt(socket.SOL_SOCKET, option, wanted)

    def _buffers(self) -> tuple[tuple[str, int, int | None, str], ...]:
        return (
            ("receive_buffer_bytes", socket.SO_RCVBUF, self.receive_buffer_bytes, "net.core.rmem_max"),
            ("send_buffer_bytes", socket.SO_SNDBUF, self.send_buffer_bytes, "net.core.wmem_max"),
        )
