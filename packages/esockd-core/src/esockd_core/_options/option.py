"""The description of an option, for every use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esockd_core._options.kinds import Kind


class Effect(StrEnum):
    """When a change of an option takes effect."""

    LIVE = "live"
    """At once, for open connections and for those to come."""
    NEW_CONNECTIONS = "new connections"
    """At once, for connections to come; open ones go on as they are."""
    REOPEN = "reopen"
    """Once the listening sockets are opened anew; connections stay open meanwhile."""


class Topic(StrEnum):
    """The topic of an option."""

    LIMITS = "How many may come in"
    ACCESS = "Who may come in"
    TIMES = "Times"
    BUFFERS = "Buffers"
    PROXY = "Behind a proxy"
    TLS = "TLS, for tls:// addresses"
    DTLS = "DTLS, for dtls:// addresses"
    SOCKETS = "Sockets"
    DATAGRAMS = "Datagrams, for udp:// addresses"
    FORWARD = "Forwarding"


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One option of a listener, or of a forwarder.

    Attributes:
        name: Its name in Python, in a group as "tcp.backlog"; the options of a forwarder are the group "forward".
        kind: The kind of its values.
        default: Its value when it is not given; `dataclasses.MISSING` if it has to be given.
        effect: When a change takes effect.
        flags: Its flags on a command line, the long form first; empty if it has none.
        text: Its effect, in one line.
        config_key: Its key in a configuration file, if it does not follow from flag or name.
    """

    name: str
    kind: Kind
    default: Any
    effect: Effect
    flags: str
    text: str
    config_key: str | None = None

    @property
    def group(self) -> str:
        """The option that contains it; empty for an option of the listener itself."""
        return self.name.rpartition(".")[0]

    @property
    def field(self) -> str:
        """Its name within its group."""
        return self.name.rpartition(".")[2]

    @property
    def flag(self) -> str | None:
        """Its long form on a command line."""
        return self.flags.split()[0] if self.flags else None

    @property
    def key(self) -> str | None:
        """Its key in a configuration file, such as "tcp_options.nodelay"; None if it cannot be written as text."""
        if self.config_key or not self.kind.is_text:
            return self.config_key
        if self.flag:
            return self.flag.removeprefix("--").replace("-", "_")
        return f"{self.group}_options.{self.field}" if self.group else self.name
