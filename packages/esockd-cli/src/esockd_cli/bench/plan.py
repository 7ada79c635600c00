"""What one load process is to do, as it travels to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias

Mode: TypeAlias = Literal["echo", "connect", "idle"]
Transport: TypeAlias = Literal["tcp", "tls", "unix", "udp", "dtls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The part of the load that one process makes.

    Attributes:
        transport: How it speaks.
        host: The address to connect to, not a name; the path of a Unix socket.
        port: The port; 0 for a Unix socket.
        server_name: What TLS asks for.
        mode: "echo" sends on connections that stay, "connect" opens one for each message, "idle" holds them.
        connections: How many are open at once.
        size: Bytes of a message; 0 only in mode connect, where none is sent then.
        rate: Messages a second, or connections in the other modes; None for the next as soon as one is answered.
        requests: How many at most; None for as many as the time allows.
        duration: Seconds.
        timeout: Seconds for connecting, and for an answer.
        first: The number of the first message, by which those of several processes differ.
    """

    transport: Transport
    host: str
    port: int
    server_name: str
    mode: Mode
    connections: int
    size: int
    rate: float | None
    requests: int | None
    duration: float
    timeout: float
    first: int = 0

    @property
    def is_datagram(self) -> bool:
        """Whether messages may be lost on the way."""
        return self.transport in ("udp", "dtls")

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Self:
        """Read what `as_dict` wrote."""
        return cls(**given)
