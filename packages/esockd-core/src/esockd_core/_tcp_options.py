"""Options of the TCP sockets of a listener, set once on the listening socket.

On Linux a connection inherits every option below from its listener at the moment of the handshake (sk_clone in the
kernel; tcp(7) names some of them), so accepting costs no system call for them. Unix sockets inherit nothing.
"""

from __future__ import annotations

import logging
import socket
import struct
from dataclasses import dataclass, fields
from pathlib import Path

from esockd_core._errors import InvalidOption

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")

logger = logging.getLogger("esockd_core")

# Bounds the kernel checks itself (MAX_TCP_KEEPIDLE and kin in include/net/tcp.h), checked here to name the option.
BOUNDS: dict[str, tuple[float, float]] = {
    "backlog": (1, 2**31 - 1),
    "receive_buffer_bytes": (1, 2**30),
    "send_buffer_bytes": (1, 2**30),
    "keepalive_idle_s": (1, 32767),
    "keepalive_interval_s": (1, 32767),
    "keepalive_count": (1, 127),
    "user_timeout_s": (0.001, 2**31 // 1000),
    "linger_s": (0, 0),
    "defer_accept_s": (1, 2**16),
}
FOR_UNIX = frozenset({"backlog", "receive_buffer_bytes", "send_buffer_bytes", "tune_buffer"})
FOR_DATAGRAMS = frozenset({"reuse_port"})
WHOLE = BOUNDS.keys() - {"user_timeout_s"}
WHY = {
    "linger_s": ": 0 resets the connection at close, None closes it in order; a longer one would block the event loop"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    """Options of a TCP listener and its connections. `backlog` and the buffers hold for Unix sockets too.

    Attributes:
        backlog: Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn (listen(2)).
        reuse_address: Bind although connections of an earlier listener linger in TIME_WAIT (SO_REUSEADDR).
        reuse_port: Let several sockets of one user share the port, each with its own queue (SO_REUSEPORT).
        nodelay: Send small segments at once (TCP_NODELAY).
        receive_buffer_bytes: Kernel receive buffer, None for the kernel's automatic size (SO_RCVBUF). The kernel
            doubles it for its own bookkeeping and caps it at net.core.rmem_max.
        send_buffer_bytes: Kernel send buffer, None for the kernel's automatic size (SO_SNDBUF, net.core.wmem_max).
        tune_buffer: Read as much at a time as the kernel's buffers hold, instead of the default chunk: fewer wake-ups
            for bulk transfers, more memory a connection.
        keepalive: Probe idle connections (SO_KEEPALIVE).
        keepalive_idle_s: Whole seconds of silence before the first probe, 1 to 32767; None for the system's setting.
        keepalive_interval_s: Whole seconds between probes, 1 to 32767; None for the system's setting.
        keepalive_count: Unanswered probes that end the connection, 1 to 127; None for the system's setting.
        user_timeout_s: Seconds that sent data may stay unacknowledged before the kernel gives the connection up
            (TCP_USER_TIMEOUT, RFC 5482), to the millisecond; None for the system's setting.
        linger_s: 0 to reset connections at close and drop what was not sent; None to close in order (SO_LINGER).
            Linux blocks in close(2) for a longer one even on a non-blocking socket, hence none is allowed.
        defer_accept_s: Whole seconds the kernel keeps a connection back until its first data arrive
            (TCP_DEFER_ACCEPT); None to hand it over at once. Not for protocols in which the server speaks first.

    Raises:
        InvalidOption: A value has the wrong type or is out of bounds.
    """

    backlog: int = 1024
    reuse_address: bool = True
    reuse_port: bool = False
    nodelay: bool = True
    receive_buffer_bytes: int | None = None
    send_buffer_bytes: int | None = None
    tune_buffer: bool = False
    keepalive: bool = False
    keepalive_idle_s: int | None = None
    keepalive_interval_s: int | None = None
    keepalive_count: int | None = None
    user_timeout_s: float | None = None
    linger_s: int | None = None
    defer_accept_s: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if field.name not in BOUNDS:
                if not isinstance(value, bool):
                    raise InvalidOption(f"bad {field.name} {value!r}: True or False")
            elif value is not None or field.default is not None:
                _check_number(field.name, value)
        if not self.keepalive:
            for name in ("keepalive_idle_s", "keepalive_interval_s", "keepalive_count"):
                if getattr(self, name) is not None:
                    raise InvalidOption(f"{name} does nothing while keepalive is off: set keepalive=True too")

    def require_only(self, names: frozenset[str], what: str) -> None:
        """Refuse options that would silently do nothing.

        Args:
            names: The options that apply.
            what: What they apply to, for the message.

        Raises:
            InvalidOption: Another option differs from its default.
        """
        for field in fields(self):
            if field.name not in names and getattr(self, field.name) != field.default:
                allowed = ", ".join(sorted(names))
                raise InvalidOption(f"{field.name} does not apply to {what}, which take {allowed} only")

    def apply_to_listener(self, sock: socket.socket) -> None:
        """Set everything but the backlog and what must precede bind(2) on a TCP or Unix stream socket.

        Best called before listen(2): the receive buffer decides the window scale of the handshake.

        Raises:
            InvalidOption: An option is set that does not apply to a Unix socket.
            OSError: The kernel refuses an option.
        """
        if sock.family == socket.AF_UNIX:
            self.require_only(FOR_UNIX, "Unix sockets")
            self._set_buffers(sock)
            return
        self._set_buffers(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self.nodelay)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self.keepalive)
        for option, value in (
            (socket.TCP_KEEPIDLE, self.keepalive_idle_s),
            (socket.TCP_KEEPINTVL, self.keepalive_interval_s),
            (socket.TCP_KEEPCNT, self.keepalive_count),
            (socket.TCP_USER_TIMEOUT, None if self.user_timeout_s is None else round(self.user_timeout_s * 1000)),
            (socket.TCP_DEFER_ACCEPT, self.defer_accept_s),
        ):
            if value is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if self.linger_s is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, self.linger_s))

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
        try:
            cap = int(SOMAXCONN.read_text())
        except (OSError, ValueError):
            return
        if self.backlog > cap:
            logger.warning(
                "backlog %d is capped by the kernel to %d; raise net.core.somaxconn to change that", self.backlog, cap
            )

    def warn_of_capped_buffers(self, sock: socket.socket) -> None:
        """Log a warning when the kernel gave a listening socket smaller buffers than asked for."""
        for name, option, wanted, setting in self._buffers():
            if wanted is not None and (granted := sock.getsockopt(socket.SOL_SOCKET, option) // 2) < wanted:
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


def _check_number(name: str, value: object) -> None:
    lowest, highest = BOUNDS[name]
    whole = name in WHOLE
    right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right_type or not lowest <= value <= highest:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        allowed = f"{kind} from {lowest} to {highest}" if name not in WHY else "0 or None"
        raise InvalidOption(f"bad {name} {value!r}: {allowed}{WHY.get(name, '')}")
