"""The socket-listener layer for anyio programs: admission, limits, drain, live statistics."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from esockd_core import _platform  # noqa: F401 (first: it says what is missing on Windows)
from esockd_core._address import Address, parse_address
from esockd_core._admission.explain import Explanation, Stage, Verdict
from esockd_core._connection.datagram_face import DatagramConnection
from esockd_core._connection.events import ConnectionEvent
from esockd_core._connection.face import Connection, StreamConnection
from esockd_core._connection.group import ConnectionGroup
from esockd_core._connection.handler import CallbackHandler, CoroutineHandler, Handler
from esockd_core._connection.log_fields import ConnectionLogFilter, with_log_fields
from esockd_core._errors import (
    AddressInUse,
    AlreadyOpen,
    BadValueError,
    CannotBind,
    DatagramTooLong,
    EsockdError,
    InvalidAddress,
    InvalidOption,
    ListenerClosed,
    MessageCutShort,
    MessageTooLong,
    RehearsalConflict,
    SocketError,
    UnknownListener,
)
from esockd_core._options.applicable import FOR_STREAMS
from esockd_core._options.arguments import (
    DtlsArguments,
    OptionArguments,
    ProxyArguments,
    TcpArguments,
    TlsArguments,
    UdpArguments,
    UnixArguments,
)
from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.changes import REHEARSED, OptionChange, OptionPlan, merge_options, plan_options
from esockd_core._options.dtls import DtlsOptions
from esockd_core._options.files import read_regular_file
from esockd_core._options.kinds import Kind as OptionKind
from esockd_core._options.listener import ConnectionLimiter, ListenerOptions, PeerName
from esockd_core._options.option import Effect, Option, Topic
from esockd_core._options.plain import OptionValue
from esockd_core._options.proxy import ProxyOptions
from esockd_core._options.table import OPTION_TABLE, OPTIONS
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.tls import TlsOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._options.upstream_tls import UpstreamTlsOptions
from esockd_core._plain import PlainValue
from esockd_core._platform.open_files import raise_open_file_limit
from esockd_core._remote.client import ControlClient
from esockd_core._remote.errors import ControlDenied, ControlError, InstanceUnreachable, UnknownMethod
from esockd_core._remote.paths import control_folder, control_path, find_control_sockets
from esockd_core._remote.program_method import ProgramMethod
from esockd_core._remote.subscription import Subscription
from esockd_core._stats.counters import Dropped, Refusal, Refused, Stats
from esockd_core._stats.histogram import Durations
from esockd_core._stats.log import LOG_FIELDS
from esockd_core._stats.reasons import OWN_REASONS
from esockd_core._stats.state import ListenerState
from esockd_core._stats.top_sources import TopSource
from esockd_core._tls.facts import PeerCertificate, TlsInfo
from esockd_core.control.instance import (
    ControlGreeting,
    InstanceSnapshot,
    InstanceStatus,
    ListenerSnapshot,
    WorkerState,
    WorkerStatus,
)
from esockd_core.control.interface import UNSET, ListenerControl, Unset
from esockd_core.control.rehearsal import RehearsalReport, RehearsedRefusal, RehearsedSource
from esockd_core.control.values import (
    Acceptor,
    ConnectionInfo,
    ConnectionPage,
    ListenerStatus,
    OptionsView,
    RuleDecision,
    RulesView,
)

if TYPE_CHECKING:
    from esockd_core._listening.listener import Listener
    from esockd_core._listening.opening import open_listener
    from esockd_core._listening.server import Server
    from esockd_core._remote.instance import ControlSource, Instance
    from esockd_core._remote.server import ControlServer

__all__ = [
    "FOR_STREAMS",
    "LOG_FIELDS",
    "OPTIONS",
    "OPTION_TABLE",
    "OWN_REASONS",
    "REHEARSED",
    "UNSET",
    "Acceptor",
    "Address",
    "AddressInUse",
    "AlreadyOpen",
    "BadValueError",
    "CallbackHandler",
    "CannotBind",
    "Connection",
    "ConnectionEvent",
    "ConnectionGroup",
    "ConnectionInfo",
    "ConnectionLimiter",
    "ConnectionLogFilter",
    "ConnectionPage",
    "ControlClient",
    "ControlDenied",
    "ControlError",
    "ControlGreeting",
    "ControlServer",
    "ControlSource",
    "CoroutineHandler",
    "DatagramConnection",
    "DatagramTooLong",
    "Dropped",
    "DtlsArguments",
    "DtlsOptions",
    "Durations",
    "Effect",
    "EsockdError",
    "Explanation",
    "Handler",
    "Instance",
    "InstanceSnapshot",
    "InstanceStatus",
    "InstanceUnreachable",
    "InvalidAddress",
    "InvalidOption",
    "Listener",
    "ListenerClosed",
    "ListenerControl",
    "ListenerOptions",
    "ListenerSnapshot",
    "ListenerState",
    "ListenerStatus",
    "MessageCutShort",
    "MessageTooLong",
    "Option",
    "OptionArguments",
    "OptionChange",
    "OptionKind",
    "OptionPlan",
    "OptionValue",
    "OptionsView",
    "PeerCertificate",
    "PeerName",
    "PlainValue",
    "ProgramMethod",
    "ProxyArguments",
    "ProxyOptions",
    "Refusal",
    "Refused",
    "RehearsalConflict",
    "RehearsalReport",
    "RehearsedRefusal",
    "RehearsedSource",
    "RuleDecision",
    "RulesView",
    "Server",
    "SocketError",
    "Stage",
    "Stats",
    "StreamConnection",
    "Subscription",
    "TcpArguments",
    "TcpOptions",
    "TlsArguments",
    "TlsCertificate",
    "TlsInfo",
    "TlsOptions",
    "TopSource",
    "Topic",
    "UdpArguments",
    "UdpOptions",
    "UnixArguments",
    "UnixOptions",
    "UnknownListener",
    "UnknownMethod",
    "Unset",
    "UpstreamTlsOptions",
    "Verdict",
    "WorkerState",
    "WorkerStatus",
    "control_folder",
    "control_path",
    "find_control_sockets",
    "merge_options",
    "open_listener",
    "parse_address",
    "plan_options",
    "raise_open_file_limit",
    "read_regular_file",
    "with_log_fields",
]

# What serves is imported when it is first used, as concurrent.futures does it: half of the package, and whoever only
# asks a running program, as the commands do, needs none of it.
_SERVING: Final = {
    "Listener": "esockd_core._listening.listener",
    "open_listener": "esockd_core._listening.opening",
    "Server": "esockd_core._listening.server",
    "ControlSource": "esockd_core._remote.instance",
    "Instance": "esockd_core._remote.instance",
    "ControlServer": "esockd_core._remote.server",
}


def __getattr__(name: str) -> Any:
    if name not in _SERVING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_SERVING[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
