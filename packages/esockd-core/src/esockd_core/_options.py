"""The options of a listener: frozen, validated when built, each with its default and unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from inspect import iscoroutinefunction
from math import isfinite
from typing import Final, Literal, TypeAlias

from esockd_cidr import AccessList, CidrError, RuleLike
from esockd_core._errors import InvalidOption
from esockd_core._tcp_options import TcpOptions
from esockd_core._tls_options import TlsOptions
from esockd_core._unix_socket import UnixOptions
from esockd_proxyproto import Policy
from esockd_ratelimit import KeyedTokenBucket, Limiter, Rate, RateLimitError, TokenBucket

PeerName: TypeAlias = tuple[str, int] | str
"""A peer as (host, port), or a Unix client's path, which is empty for most clients."""

LoadHook: TypeAlias = Callable[[PeerName], bool]
"""Says whether the program has room for one more connection from this peer."""

AccessRules: TypeAlias = Iterable[RuleLike]
"""Rules as strings, pairs or `esockd_cidr.Rule`s in order, or an `esockd_cidr.AccessList`."""

RateLike: TypeAlias = str | int | float | Fraction | Rate
"""Connections a second: `"500/s"`, `"500/s burst 1000"`, a number, or a `Rate`."""

DEFAULT_MAX_CONNECTIONS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """What a listener does, beside its address and handler.

    Attributes:
        acceptors: Registrations of each listening socket with the event loop, 1 to 64.
        max_connections: Connections open at once, None for no bound. Clamped to what the open-file limit allows.
        max_connections_per_source: The same for one source: an IPv4 address, or an IPv6 /64. None for no bound.
        max_conn_rate: Connections a second, as `"500/s"`, `"500/s burst 1000"`, a number or a `Rate`; None is no bound.
        max_conn_rate_per_source: The same for one source.
        limiter: The program's own limiter, asked at `max_conn_rate`'s place in the order; excludes `max_conn_rate`.
        access_rules: Ordered rules for the peer's address; first match wins and no match allows.
        max_loop_lag: Seconds the event loop may be late before new connections are refused; None for no bound.
        load_hook: The program's own answer whether it has room for one more connection.
        when_full: At `max_connections`: "close" what comes, or leave it in the "backlog" of the kernel.
        when_limited: At `max_conn_rate`: likewise.
        refuse_with: How a refused socket ends: "fin" (orderly close), "rst" (reset), or bytes, a farewell message.
        idle_timeout: Seconds without a byte in either direction before a connection is closed; None for no bound.
        send_timeout: Seconds a peer may take no byte of what waits for it before it is closed; None for no bound.
        linger_timeout: Seconds a closing connection may take to flush its output and to read what the peer still sends.
        shutdown_timeout: Seconds a handler has to end once its listener closes; 0 is at once, None is for ever.
        read_buffer_bytes: Received bytes held for a handler that does not read; the socket is paused above.
        write_buffer_bytes: Unsent bytes above which `send` waits.
        write_limit_bytes: Unsent bytes above which `send_nowait` raises `anyio.WouldBlock`.
        proxy_protocol: Whether connections begin with a PROXY protocol header: False never looks, True requires one.
            An `esockd_proxyproto.Policy`, or its text, says something else; those that look whether there is a header
            let whoever reaches the listener choose its address.
        proxy_protocol_timeout: Seconds for the whole header.
        trusted: The upstreams whose headers count, as addresses and networks or an `AccessList`; others are refused at
            accept. None trusts every peer: only where nobody but the proxies can reach the listener.
        access_rules_on: With a PROXY header, whether `access_rules` judge the "source" it names, the socket's "peer",
            or "both". Limits for one source always count the source.
        tls: How to speak TLS, for `tls://` addresses.
        handshake_timeout: Seconds for the whole TLS handshake.
        max_handshaking: Connections waiting for a header or in a handshake at once; more are refused as overload.
            None is a quarter of `max_connections`.
        tcp: Options of the listening and accepted sockets.
        unix: Mode and owner of a Unix socket's path.
    """

    acceptors: int = 1
    max_connections: int | None = DEFAULT_MAX_CONNECTIONS
    max_connections_per_source: int | None = None
    max_conn_rate: RateLike | None = None
    max_conn_rate_per_source: RateLike | None = None
    limiter: Limiter | None = None
    access_rules: AccessRules = ()
    max_loop_lag: float | None = None
    load_hook: LoadHook | None = None
    when_full: Literal["close", "backlog"] = "close"
    when_limited: Literal["close", "backlog"] = "close"
    refuse_with: Literal["fin", "rst"] | bytes = "fin"
    idle_timeout: float | None = None
    send_timeout: float | None = 30.0
    linger_timeout: float = 2.0
    shutdown_timeout: float | None = 5.0
    read_buffer_bytes: int = 65_536
    write_buffer_bytes: int = 65_536
    write_limit_bytes: int = 1_048_576
    proxy_protocol: bool | Policy | str = False
    proxy_protocol_timeout: float = 5.0
    trusted: Iterable[str] | AccessList | None = None
    access_rules_on: Literal["source", "peer", "both"] = "source"
    tls: TlsOptions | None = None
    handshake_timeout: float = 15.0
    max_handshaking: int | None = None
    tcp: TcpOptions = field(default_factory=TcpOptions)
    unix: UnixOptions = field(default_factory=UnixOptions)

    def __post_init__(self) -> None:
        """Validate each value, so that nothing is opened with a bad one."""
        _check_count("acceptors", self.acceptors, 1, 64)
        _check_count("max_connections", self.max_connections, 1, optional=True)
        _check_count("max_connections_per_source", self.max_connections_per_source, 1, optional=True)
        for name in ("read_buffer_bytes", "write_buffer_bytes", "write_limit_bytes"):
            _check_count(name, getattr(self, name), 1)
        if self.write_limit_bytes < self.write_buffer_bytes:
            raise InvalidOption(
                f"write_limit_bytes {self.write_limit_bytes} is below write_buffer_bytes {self.write_buffer_bytes}: "
                "send_nowait would fail before send waits. Raise the one or lower the other."
            )
        for name in ("idle_timeout", "send_timeout", "max_loop_lag"):
            _check_seconds(name, getattr(self, name), positive=True)
        for name in ("shutdown_timeout", "linger_timeout"):
            _check_seconds(name, getattr(self, name), positive=False)
        for name in ("when_full", "when_limited"):
            if getattr(self, name) not in ("close", "backlog"):
                raise InvalidOption(f'{name} is {getattr(self, name)!r}; it is "close" or "backlog".')
        if self.refuse_with not in ("fin", "rst") and not isinstance(self.refuse_with, bytes):
            raise InvalidOption(f'refuse_with is {self.refuse_with!r}; it is "fin", "rst" or bytes to send.')
        if self.limiter is not None and self.max_conn_rate is not None:
            raise InvalidOption("limiter and max_conn_rate are both given: give the one that is to decide.")
        self._check_judges()
        if not isinstance(self.tcp, TcpOptions):
            raise InvalidOption(f"tcp is {self.tcp!r}; it takes a TcpOptions.")
        self.connection_limiter()
        self.source_limiter()
        self._keep_rules()
        self._check_upgrades()

    def _check_judges(self) -> None:
        if self.load_hook is not None and not callable(self.load_hook):
            raise InvalidOption(f"load_hook is {self.load_hook!r}; it takes a function of the peer's name.")
        if self.limiter is not None and not callable(getattr(self.limiter, "try_acquire", None)):
            raise InvalidOption(f"limiter is {self.limiter!r}; it takes an object like esockd_ratelimit.TokenBucket.")
        for name, judge in (("load_hook", self.load_hook), ("limiter", getattr(self.limiter, "try_acquire", None))):
            if iscoroutinefunction(judge):  # its answer, a coroutine, would count as a yes to everybody
                raise InvalidOption(f"{name} is a coroutine function; admission cannot wait: give a plain function.")

    def _keep_rules(self) -> None:
        """Read the rules once: an iterator would be empty for who reads it next, and no rules allow everybody."""
        if not isinstance(self.access_rules, AccessList):
            object.__setattr__(self, "access_rules", self.access_list().rules)
        if isinstance(self.trusted, Iterable) and not isinstance(self.trusted, AccessList | str):
            object.__setattr__(self, "trusted", tuple(self.trusted))

    def _check_upgrades(self) -> None:
        for name in ("proxy_protocol_timeout", "handshake_timeout"):
            if getattr(self, name) is None:
                raise InvalidOption(f"{name} is None; it takes seconds, more than 0: nobody may wait for ever.")
            _check_seconds(name, getattr(self, name), positive=True)
        _check_count("max_handshaking", self.max_handshaking, 1, optional=True)
        if self.access_rules_on not in ("source", "peer", "both"):
            raise InvalidOption(f'access_rules_on is {self.access_rules_on!r}; it is "source", "peer" or "both".')
        if self.tls is not None and not isinstance(self.tls, TlsOptions):
            raise InvalidOption(f"tls is {self.tls!r}; it takes a TlsOptions.")
        if self.proxy_policy() is None:
            for name, default in (("trusted", None), ("access_rules_on", "source"), ("proxy_protocol_timeout", 5.0)):
                if getattr(self, name) != default:
                    raise InvalidOption(f"{name} does nothing without proxy_protocol: set proxy_protocol=True too.")
        self.trusted_list()

    def proxy_policy(self) -> Policy | None:
        """What to do about PROXY headers; None for nothing."""
        given = self.proxy_protocol
        if isinstance(given, bool):
            return Policy.REQUIRE if given else None
        try:
            policy = Policy(given)
        except ValueError as error:
            allowed = ", ".join(f'"{policy}"' for policy in Policy)
            raise InvalidOption(f"proxy_protocol is {given!r}; it is True, False, {allowed}.") from error
        return None if policy is Policy.SKIP else policy

    def trusted_list(self) -> AccessList:
        """The upstreams whose PROXY headers count."""
        if self.trusted is None:
            return AccessList()
        if isinstance(self.trusted, AccessList):
            return AccessList(self.trusted.rules, self.trusted.default)
        if isinstance(self.trusted, str):
            raise InvalidOption(f'trusted is {self.trusted!r}; it takes several networks, such as ["10.0.0.0/8"].')
        try:
            return AccessList([("allow", network) for network in self.trusted], "deny")
        except (CidrError, TypeError) as error:
            raise InvalidOption(f"trusted: {error}") from error

    def handshake_room(self) -> int | None:
        """Connections that may be in upgrade at once."""
        if self.max_handshaking is not None or self.max_connections is None:
            return self.max_handshaking
        return max(1, self.max_connections // 4)

    def access_list(self) -> AccessList:
        """A new list of the access rules, for a listener to own."""
        try:
            if isinstance(self.access_rules, AccessList):
                return AccessList(self.access_rules.rules, self.access_rules.default)
            return AccessList(self.access_rules)
        except (CidrError, TypeError) as error:
            raise InvalidOption(f"access_rules: {error}") from error

    def connection_limiter(self) -> Limiter | None:
        """A new bucket for `max_conn_rate`, or the program's own limiter, or None."""
        if self.limiter is not None:
            return self.limiter
        rate = _rate("max_conn_rate", self.max_conn_rate)
        return None if rate is None else TokenBucket(rate)

    def source_limiter(self) -> KeyedTokenBucket | None:
        """New buckets for `max_conn_rate_per_source`, or None."""
        rate = _rate("max_conn_rate_per_source", self.max_conn_rate_per_source)
        return None if rate is None else KeyedTokenBucket(rate)


def _rate(name: str, value: RateLike | None) -> Rate | None:
    if value is None or value == "infinity":
        return None
    try:
        return Rate.parse(value) if isinstance(value, str) else Rate.of(value)
    except (TypeError, ValueError, RateLimitError) as error:
        raise InvalidOption(f"{name}: {error}") from error


def _check_count(name: str, value: object, least: int, most: int | None = None, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise InvalidOption(
            f"{name} is {value!r}; it takes a whole number, {allowed}{', or None' if optional else ''}."
        )


def _check_seconds(name: str, value: object, *, positive: bool) -> None:
    if value is None and name != "linger_timeout":
        return
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not isfinite(value)
        or value < 0
        or (positive and value == 0)
    ):
        raise InvalidOption(f"{name} is {value!r}; it takes seconds, {'more than 0' if positive else '0 or more'}.")
