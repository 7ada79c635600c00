"""A listener and its connections, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from esockd_core._connection.face import State
from esockd_core._options.listener import PeerName
from esockd_core._options.plain import OptionValue
from esockd_core._plain import PlainValue, from_json, to_json
from esockd_core._stats.state import ListenerState
from esockd_core._tls.facts import TlsInfo

MAX_PAGE = 1_000  # connections in one page


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStatus(PlainValue):
    """A listener at one moment.

    Attributes:
        name: Its name.
        address: The address that it was opened with, as text.
        state: Its state.
        addresses: The addresses that are really bound, one for each socket.
        port: The real port; None for a Unix socket or when not open.
        opened_at: Seconds since the epoch at which it began to accept; None before that.
        handler: The place of the handler of new connections, as "package.module:name".
    """

    name: str
    address: str
    state: ListenerState
    addresses: tuple[str, ...]
    port: int | None
    opened_at: float | None
    handler: str


@dataclass(frozen=True, slots=True)
class Acceptor(PlainValue):
    """One registration of a listening socket with the event loop.

    Attributes:
        id: Its number within the listener, from 0.
        address: The address that its socket is bound to.
        restarts: How often it crashed and was started again.
    """

    id: int
    address: str
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo(PlainValue):
    """A connection at one moment; the attributes are those of `Connection`."""

    id: int
    peername: PeerName
    socket_peername: PeerName
    sockname: PeerName
    state: State
    opened_at: float
    bytes_in: int
    bytes_out: int
    draining: bool
    tls: TlsInfo | None


@dataclass(frozen=True, slots=True)
class ConnectionPage(PlainValue):
    """Some of many connections.

    Attributes:
        connections: Oldest first.
        after: The argument `after` for the next page; None if this is the last.
    """

    connections: tuple[ConnectionInfo, ...]
    after: int | None


class OptionsView(PlainValue, Mapping[str, OptionValue]):
    """The options in force by name, those of a group as "tcp.backlog".

    Values are shown as plain values: rules, rates and paths are texts, and functions and objects of the program are
    import paths. Secrets, such as the password of a private key, are left out.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, OptionValue]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> OptionValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"OptionsView({self._values!r})"

    def as_dict(self) -> dict[str, Any]:
        """Every option, as JSON can hold it; bytes are `{"base64": "..."}`."""
        return {name: to_json(value) for name, value in self._values.items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Read the view that `as_dict` wrote.

        Raises:
            ValueError: If it is not a mapping.
        """
        if not isinstance(given, Mapping):
            raise ValueError(f"{cls.__name__}: {given!r} is not a mapping")  # noqa: TRY004 (as in every plain value)
        return cls({name: from_json(value) for name, value in given.items()})


@dataclass(frozen=True, slots=True)
class RulesView(PlainValue):
    """The access rules in force.

    Attributes:
        rules: The rules in their order, such as "deny 10.0.0.0/8". The first that matches an address decides.
        default: The decision for an address that no rule matches.
    """

    rules: tuple[str, ...]
    default: Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class RuleDecision(PlainValue):
    """The decision of the access rules about an address.

    Attributes:
        action: The decision.
        rule: The deciding rule; None if no rule matches and the default decides.
        index: The position of that rule, from 0; None if there is none.
    """

    action: Literal["allow", "deny"]
    rule: str | None
    index: int | None
