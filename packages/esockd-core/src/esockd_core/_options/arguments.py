"""The options of a listener as keyword arguments, for type checkers and editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from pathlib import Path

    from esockd_cidr import AccessList
    from esockd_core._options.certificate import TlsCertificate
    from esockd_core._options.dtls import DtlsOptions
    from esockd_core._options.listener import AccessRules, ConnectionLimiter, LoadHook
    from esockd_core._options.proxy import JudgedAddress, ProxyOptions
    from esockd_core._options.psk import PskSource
    from esockd_core._options.rate import RateLike
    from esockd_core._options.shared import WhenAway
    from esockd_core._options.tcp import TcpOptions
    from esockd_core._options.tls import TlsOptions, TlsVersion, VerifyMode
    from esockd_core._options.udp import UdpOptions
    from esockd_core._options.unix import UnixOptions
    from esockd_proxyproto import Policy


class TcpArguments(TypedDict, total=False):
    """Single options of `TcpOptions`."""

    backlog: int
    reuse_address: bool
    reuse_port: bool
    nodelay: bool
    receive_buffer_bytes: int | None
    send_buffer_bytes: int | None
    tune_buffer: bool
    keepalive: bool
    keepalive_idle_timeout: int | None
    keepalive_interval: int | None
    keepalive_count: int | None
    user_timeout: float | None
    reset_on_close: bool
    defer_accept_timeout: int | None


class UnixArguments(TypedDict, total=False):
    """Single options of `UnixOptions`."""

    mode: int | None
    owner: str | int | None
    group: str | int | None


class UdpArguments(TypedDict, total=False):
    """Single options of `UdpOptions`."""

    idle_timeout: float | None
    queue_datagrams: int
    max_datagram_bytes: int
    max_packet_rate: RateLike | None
    max_packet_rate_per_peer: RateLike | None
    health_check: tuple[bytes, bytes] | None
    session_id: Callable[[bytes], Hashable | None] | None
    may_move: Callable[[Any, bytes, Any], bool] | None
    receive_buffer_bytes: int | None
    send_buffer_bytes: int | None
    ttl: int | None
    tos: int | None
    multicast: Iterable[str]
    reuse_port: bool


class ProxyArguments(TypedDict, total=False):
    """Single options of `ProxyOptions`."""

    policy: Policy | str
    trusted: Iterable[str] | AccessList | None
    header_timeout: float
    access_rules_on: JudgedAddress


class TlsArguments(TypedDict, total=False):
    """Single options of `TlsOptions`."""

    certfile: str | Path
    keyfile: str | Path | None
    password: str | bytes | None
    sni: Mapping[str, TlsCertificate]
    client_ca: str | Path | None
    verify: VerifyMode | None
    alpn: Iterable[str]
    minimum_version: TlsVersion
    maximum_version: TlsVersion | None
    ciphers: str | None


class DtlsArguments(TypedDict, total=False):
    """Single options of `DtlsOptions`."""

    certfile: str | Path | None
    keyfile: str | Path | None
    password: str | bytes | None
    sni: Mapping[str, TlsCertificate]
    client_ca: str | Path | None
    verify: VerifyMode | None
    psk: PskSource | None
    alpn: Iterable[str]
    ciphers: str | None
    mtu: int
    max_sessions: int | None


class OptionArguments(TypedDict, total=False):
    """Single options of `ListenerOptions`; nested ones as a whole, or as a mapping that changes some of theirs."""

    acceptors: int
    max_connections: int | None
    max_connections_per_source: int | None
    max_conn_rate: RateLike | None
    max_conn_rate_per_source: RateLike | None
    shared: str | None
    shared_lease: int | None
    shared_processes: int
    shared_when_away: WhenAway
    limiter: ConnectionLimiter | None
    access_rules: AccessRules
    max_loop_lag: float | None
    load_hook: LoadHook | None
    when_full: Literal["close", "backlog"]
    when_limited: Literal["close", "backlog"]
    refuse_with: Literal["fin", "rst"] | bytes
    idle_timeout: float | None
    receive_timeout: float | None
    send_timeout: float | None
    max_age: float | None
    max_age_jitter: float | None
    linger_timeout: float
    shutdown_timeout: float | None
    read_buffer_bytes: int
    write_buffer_bytes: int
    write_limit_bytes: int
    proxy_protocol: bool | Policy | str | ProxyOptions | ProxyArguments
    tls: TlsOptions | TlsArguments | None
    dtls: DtlsOptions | DtlsArguments | None
    handshake_timeout: float
    max_handshaking: int | None
    tcp: TcpOptions | TcpArguments
    unix: UnixOptions | UnixArguments
    udp: UdpOptions | UdpArguments
