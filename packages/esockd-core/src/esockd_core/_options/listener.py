"""The options of a listener: frozen, and checked when they are built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from esockd_cidr import AccessList, RuleLike
from esockd_core._checks import kept
from esockd_core._errors import InvalidOption
from esockd_core._options.dtls import DtlsOptions
from esockd_core._options.proxy import ProxyOptions, read_proxy_protocol
from esockd_core._options.shared import ServerUrl, SharedRate
from esockd_core._options.special_kinds import ConnectionRate, Rules
from esockd_core._options.table import OPTIONS, check_options
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.tls import TlsOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_ratelimit import TokenBucket

if TYPE_CHECKING:
    from esockd_core._options.rate import RateLike
    from esockd_core._options.shared import WhenAway
    from esockd_proxyproto import Policy
    from esockd_ratelimit import Rate

PeerName: TypeAlias = tuple[str, int] | str
"""A peer as (host, port), or a Unix client's path, which is empty for most clients."""

LoadHook: TypeAlias = Callable[[PeerName], bool]
"""Says whether the program has room for one more connection from this peer."""

AccessRules: TypeAlias = Iterable[RuleLike]
"""Rules as strings, pairs or `esockd_cidr.Rule`s in order, or an `esockd_cidr.AccessList`."""


class ConnectionLimiter(Protocol):
    """A limiter of your own. `esockd_ratelimit.TokenBucket` is one."""

    def try_acquire(self) -> bool:
        """Say whether one more connection may come in now, and spend a token if so."""
        ...

    def wait_time(self) -> float:
        """Say how many seconds it takes until one more may come in."""
        ...


DEFAULT_MAX_CONNECTIONS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """How a listener behaves, apart from its address and handler. Values are checked when the object is built.

    Attributes:
        acceptors: How many times each listening socket is registered with the event loop, 1 to 64.
        max_connections: How many connections may be open at once, lowered to what the open-file limit allows. None sets
            no limit.
        max_connections_per_source: The same for one source, which is an IPv4 address or an IPv6 /64. None sets no
            limit.
        max_conn_rate: How many connections a second may come in: `"500/s"`, `"500/s burst 1000"`, a number or a `Rate`.
            None sets no limit.
        max_conn_rate_per_source: The same for one source.
        shared: The URL of a Redis or Valkey server, such as `"redis://10.0.0.9:6379/0"`. It keeps `max_conn_rate` for
            all listeners of the same name that use it, on any machine. Needs the extra `redis`.
        shared_lease: How many tokens of it to fetch at once, in advance, and so the most connections that may come in
            at once. None is a tenth of the burst.
        shared_processes: How many processes share the rate, each worker counted.
        shared_when_away: What comes in while the server does not answer: with "local" each process lets in its part of
            the rate, with "closed" nobody comes in, with "open" everybody.
        limiter: A limiter of your own, asked where `max_conn_rate` would be. Give one or the other.
        access_rules: Ordered rules for the peer's address. The first match decides; a peer that matches none is let in.
        max_loop_lag: New connections are refused while the event loop runs more than this many seconds late. None sets
            no limit.
        load_hook: A function of yours that says whether there is room for one more connection.
        when_full: What happens to new connections at `max_connections`: "close" refuses them, "backlog" leaves them in
            the kernel's queue.
        when_limited: The same at `max_conn_rate`.
        refuse_with: How a refused connection ends: "fin" closes it in order, "rst" resets it, and bytes are sent as a
            farewell.
        idle_timeout: A connection is closed after this many seconds without a byte in either direction. None sets no
            limit.
        receive_timeout: A connection is reset when its peer sends nothing for this many seconds. What is sent to it
            does not count. A handler can set another time for its connection. None sets no limit.
        send_timeout: A connection is closed when its peer takes none of the waiting bytes for this many seconds. None
            sets no limit.
        max_age: A connection of this many seconds is asked to end, as by a listener that closes. It is cut as `max_age`
            when it has not ended after `shutdown_timeout`. None sets no limit.
        max_age_jitter: Each connection is asked earlier by a random part of this many seconds, so that clients do not
            all come back at once. None is a tenth of `max_age`.
        linger_timeout: How many seconds a closing connection may take to flush its output and to read what the peer
            still sends.
        shutdown_timeout: How many seconds handlers may go on once the listener closes; 0 stops them at once, None waits
            for ever.
        read_buffer_bytes: How much received data is held for a handler that does not read. Above it, the socket is
            paused.
        write_buffer_bytes: How much unsent data makes `send` wait.
        write_limit_bytes: How much unsent data makes `send_nowait` raise `anyio.WouldBlock`.
        proxy_protocol: Whether connections begin with a PROXY protocol header. False looks for none. True requires one
            and believes every peer. `ProxyOptions` say which proxies to believe, and more. An
            `esockd_proxyproto.Policy`, or its text, is short for `ProxyOptions(policy=...)`. The attribute is always
            False or a `ProxyOptions`.
        tls: How to speak TLS; required for `tls://` addresses.
        dtls: How to speak DTLS; required for `dtls://` addresses.
        handshake_timeout: How many seconds the whole handshake of TLS or DTLS may take.
        max_handshaking: How many connections may be in such a handshake or waiting for a PROXY header at once; the rest
            are refused as overload. None is a quarter of `max_connections`.
        tcp: Options of the listening and accepted sockets.
        unix: Mode and owner of a Unix socket's path.
        udp: What is held for the peers of a datagram listener, and the options of its sockets.

    Raises:
        InvalidOption: If a value is not allowed.
    """

    acceptors: int = 1
    max_connections: int | None = DEFAULT_MAX_CONNECTIONS
    max_connections_per_source: int | None = None
    max_conn_rate: RateLike | None = None
    max_conn_rate_per_source: RateLike | None = None
    shared: str | None = None
    shared_lease: int | None = None
    shared_processes: int = 1
    shared_when_away: WhenAway = "local"
    limiter: ConnectionLimiter | None = None
    access_rules: AccessRules = ()
    max_loop_lag: float | None = None
    load_hook: LoadHook | None = None
    when_full: Literal["close", "backlog"] = "close"
    when_limited: Literal["close", "backlog"] = "close"
    refuse_with: Literal["fin", "rst"] | bytes = "fin"
    idle_timeout: float | None = None
    receive_timeout: float | None = None
    send_timeout: float | None = 30.0
    max_age: float | None = None
    max_age_jitter: float | None = None
    linger_timeout: float = 2.0
    shutdown_timeout: float | None = 5.0
    read_buffer_bytes: int = 65_536
    write_buffer_bytes: int = 65_536
    write_limit_bytes: int = 1_048_576
    proxy_protocol: bool | Policy | str | ProxyOptions = False
    tls: TlsOptions | None = None
    dtls: DtlsOptions | None = None
    handshake_timeout: float = 15.0
    max_handshaking: int | None = None
    tcp: TcpOptions = field(default_factory=TcpOptions)
    unix: UnixOptions = field(default_factory=UnixOptions)
    udp: UdpOptions = field(default_factory=UdpOptions)

    def __post_init__(self) -> None:
        """Validate each value, so that nothing is opened with a bad one; read iterators once."""
        object.__setattr__(self, "access_rules", kept(self.access_rules))
        check_options("", self)
        for name, kind in (
            ("tcp", TcpOptions),
            ("unix", UnixOptions),
            ("udp", UdpOptions),
            ("tls", TlsOptions | None),
            ("dtls", DtlsOptions | None),
        ):
            if not isinstance(value := getattr(self, name), kind):
                raise InvalidOption(f"it takes a {name.capitalize()}Options", option=name, value=value)
        if not isinstance(self.access_rules, AccessList):
            object.__setattr__(self, "access_rules", self.access_list().rules)
        object.__setattr__(self, "proxy_protocol", read_proxy_protocol(self.proxy_protocol) or False)
        if self.write_limit_bytes < self.write_buffer_bytes:
            reason = (
                f"it is below write_buffer_bytes, {self.write_buffer_bytes}: send_nowait would fail before send waits"
            )
            raise InvalidOption(reason, option="write_limit_bytes", value=self.write_limit_bytes)
        self._check_judges()
        self._check_shared()

    def _check_judges(self) -> None:
        if self.limiter is not None and self.max_conn_rate is not None:
            raise InvalidOption("limiter and max_conn_rate are both given", hint="Give the one that is to decide.")
        try_acquire = getattr(self.limiter, "try_acquire", None)
        for name, given, judge in (
            ("load_hook", self.load_hook, self.load_hook),
            ("limiter", self.limiter, try_acquire),
        ):
            if given is not None and not callable(judge):
                raise InvalidOption(f"it takes {OPTIONS[name].kind.takes}", option=name, value=given)
            if iscoroutinefunction(judge):  # its answer, a coroutine, would count as a yes to everybody
                raise InvalidOption("it is a coroutine function, and admission cannot wait", option=name, value=given)

    def _check_shared(self) -> None:
        if self.shared is None:
            for option in ("shared_lease", "shared_processes", "shared_when_away"):
                if (given := getattr(self, option)) != OPTIONS[option].default:
                    raise InvalidOption("it does nothing without shared", option=option, value=given)
            return
        object.__setattr__(self, "shared", ServerUrl(self.shared))
        rate = self.shared_rate()
        if rate is None:
            hint = "Set max_conn_rate, the rate of all who share it."
            raise InvalidOption("there is no max_conn_rate to share", option="shared", value=self.shared, hint=hint)
        rate.bucket("")  # it connects to nobody yet

    @property
    def proxy(self) -> ProxyOptions | None:
        """The options for PROXY headers; None if no header is looked for."""
        return self.proxy_protocol if isinstance(self.proxy_protocol, ProxyOptions) else None

    def connection_room(self) -> tuple[str, int | None]:
        """The option that bounds how many connections may be open at once, and its value."""
        most, sessions = self.max_connections, None if self.dtls is None else self.dtls.max_sessions
        if sessions is not None and (most is None or sessions < most):
            return "dtls.max_sessions", sessions
        return "max_connections", most

    def handshake_room(self) -> int | None:
        """Connections that may be in their entrance at once."""
        if self.max_handshaking is not None or self.max_connections is None:
            return self.max_handshaking
        return max(1, self.max_connections // 4)

    def access_list(self) -> AccessList:
        """A new list of the access rules, for a listener to own."""
        return Rules().convert(self.access_rules)

    def connection_limiter(self) -> ConnectionLimiter | None:
        """A new bucket for `max_conn_rate` in this process, or the program's own limiter, or None."""
        if self.limiter is not None or self.max_conn_rate is None:
            return self.limiter
        return TokenBucket(ConnectionRate().convert(self.max_conn_rate))

    def shared_rate(self) -> SharedRate | None:
        """What the bucket of `max_conn_rate` on a server is made of, or None if it is not shared."""
        if self.shared is None or self.max_conn_rate is None:
            return None
        rate = ConnectionRate().convert(self.max_conn_rate)
        return SharedRate(ServerUrl(self.shared), rate, self.shared_lease, self.shared_processes, self.shared_when_away)

    def source_rate(self) -> Rate | None:
        """The rate of `max_conn_rate_per_source`, or None."""
        given = self.max_conn_rate_per_source
        return None if given is None else ConnectionRate().convert(given)
