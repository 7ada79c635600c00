"""The socket-listener layer for anyio programs: admission, limits, drain, live statistics."""

from esockd_core._acceptors import Acceptor
from esockd_core._address import Address, parse_address
from esockd_core._connection import Connection, StreamConnection
from esockd_core._control import ListenerControl
from esockd_core._errors import (
    AddressInUse,
    AlreadyOpen,
    CannotBind,
    EsockdError,
    InvalidAddress,
    InvalidOption,
    ListenerClosed,
    SocketError,
    UnknownListener,
)
from esockd_core._events import ConnectionEvent
from esockd_core._explain import Explanation, Stage, Verdict
from esockd_core._handler import CallbackHandler, CoroutineHandler, Handler
from esockd_core._histogram import Durations
from esockd_core._inspection import ConnectionInfo, ConnectionPage, ListenerStatus
from esockd_core._limits import raise_open_file_limit
from esockd_core._listener import Listener, open_listener
from esockd_core._log import LOG_FIELDS
from esockd_core._option_changes import Effect, OptionChange, OptionPlan, plan_options
from esockd_core._options import ListenerOptions
from esockd_core._peer_certificate import PeerCertificate, TlsInfo
from esockd_core._server import Server
from esockd_core._stats import Refusal, Refused, Stats
from esockd_core._tcp_options import TcpOptions
from esockd_core._tls_options import TlsCertificate, TlsOptions
from esockd_core._top_sources import TopSource
from esockd_core._unix_socket import UnixOptions
from esockd_core._upstream_tls import UpstreamTlsOptions

__all__ = [
    "LOG_FIELDS",
    "Acceptor",
    "Address",
    "AddressInUse",
    "AlreadyOpen",
    "CallbackHandler",
    "CannotBind",
    "Connection",
    "ConnectionEvent",
    "ConnectionInfo",
    "ConnectionPage",
    "CoroutineHandler",
    "Durations",
    "Effect",
    "EsockdError",
    "Explanation",
    "Handler",
    "InvalidAddress",
    "InvalidOption",
    "Listener",
    "ListenerClosed",
    "ListenerControl",
    "ListenerOptions",
    "ListenerStatus",
    "OptionChange",
    "OptionPlan",
    "PeerCertificate",
    "Refusal",
    "Refused",
    "Server",
    "SocketError",
    "Stage",
    "Stats",
    "StreamConnection",
    "TcpOptions",
    "TlsCertificate",
    "TlsInfo",
    "TlsOptions",
    "TopSource",
    "UnixOptions",
    "UnknownListener",
    "UpstreamTlsOptions",
    "Verdict",
    "open_listener",
    "parse_address",
    "plan_options",
    "raise_open_file_limit",
]
