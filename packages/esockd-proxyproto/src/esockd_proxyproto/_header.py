"""What a header says, as immutable data.

The records are named tuples because each connection builds them on the hot path: a frozen dataclass costs four times as
much to build.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from . import _views
from ._endpoint import Endpoint, UnixEndpoint, to_endpoint
from ._errors import UnencodableHeader
from ._tlv import Tlv, TlvType, join, split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._endpoint import EndpointLike
    from ._views import SslInfo

Number = TypeVar("Number", bound=IntEnum)

new_record: Final = tuple.__new__
"""Builds a named tuple from a tuple of all its fields, in a third of the time of calling its class."""


class Command(IntEnum):
    """The low four bits of the 13th byte (PP 2.2). Version 1 has no commands: its headers count as ``PROXY``."""

    LOCAL = 0
    """The proxy speaks for itself, for instance a health check: use the connection's own addresses."""
    PROXY = 1
    """The connection is relayed for the client at ``source``."""


class Family(IntEnum):
    """The address family: the high four bits of the 14th byte (PP 2.2)."""

    UNSPEC = 0
    INET = 1
    INET6 = 2
    UNIX = 3


class Transport(IntEnum):
    """The transport protocol: the low four bits of the 14th byte (PP 2.2)."""

    UNSPEC = 0
    STREAM = 1
    DGRAM = 2


class _Fields(NamedTuple):
    version: int
    command: Command
    family: Family
    transport: Transport
    source: Endpoint | UnixEndpoint | None
    destination: Endpoint | UnixEndpoint | None
    tlv_bytes: bytes


class ProxyHeader(_Fields):
    """One PROXY protocol header.

    ``source`` and ``destination`` are both present or both None. They are None for ``LOCAL``, for version 1's UNKNOWN
    and for an unspecified family or transport, where the connection's own addresses count.

    Args:
        version: 1 or 2.
        command: ``PROXY`` or ``LOCAL``.
        family: Found from ``source`` when it is not given.
        transport: ``STREAM`` when it is not given and there is a source.
        source: Where the client connected from: an endpoint, or the tuple of a socket.
        destination: What the client connected to.
        tlvs: Additional values of version 2, in the order of the wire.

    Raises:
        UnencodableHeader: If headers cannot carry one of the values, or either source or destination is missing.
            `encode` checks whether the values go together.

    >>> ProxyHeader(source=("192.0.2.1", 56324), destination=("198.51.100.7", 443)).family
    <Family.INET: 1>
    """

    __slots__ = ()

    def __new__(  # noqa: PLR0917 - copy and pickle pass a tuple's fields by position
        cls,
        version: int = 2,
        command: Command = Command.PROXY,
        family: Family | None = None,
        transport: Transport | None = None,
        source: EndpointLike | None = None,
        destination: EndpointLike | None = None,
        tlvs: Iterable[Tlv] = (),
    ) -> Self:
        """Build a header."""
        if version not in {1, 2}:
            raise UnencodableHeader("it takes 1 or 2", option="version", value=version)
        source_end, destination_end = to_endpoint(source, "source"), to_endpoint(destination, "destination")
        if (source_end is None) != (destination_end is None):
            raise UnencodableHeader("source and destination go together: give both or neither")
        return super().__new__(
            cls,
            version,
            _member(Command, command, "command"),
            _family_of(source_end) if family is None else _member(Family, family, "family"),
            _transport_of(source_end) if transport is None else _member(Transport, transport, "transport"),
            source_end,
            destination_end,
            join(tlvs),
        )

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What copy and pickle pass to the constructor."""
        return (*self[:-1], self.tlvs)

    def __repr__(self) -> str:
        fields = [*zip(self._fields[:-1], self, strict=False), ("tlvs", self.tlvs)]
        return f"ProxyHeader({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def replace(self, **changes: Any) -> ProxyHeader:
        """A copy with some fields changed, named as the constructor's arguments."""
        fields: dict[str, Any] = dict(zip(self._fields[:-1], self, strict=False))
        fields["tlvs"] = self.tlvs
        fields.update(changes)
        return ProxyHeader(**fields)

    @property
    def tlvs(self) -> tuple[Tlv, ...]:
        """Every TLV, in order and raw. The header keeps bytes, and cuts them up on demand."""
        return split(self.tlv_bytes, 0) or ()

    def tlv(self, type: int) -> bytes | None:  # noqa: A002 - the field's name in the specification
        """The raw value of the first TLV of a type, or None if the header has no such TLV."""
        return _views.find(self.tlv_bytes, type)

    @property
    def alpn(self) -> bytes | None:
        """The application protocol in use, as in TLS' ALPN (PP 2.2.1)."""
        return self.tlv(TlvType.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name the client asked for, as in TLS' SNI (PP 2.2.2).

        Raises:
            InvalidTlv: If the value is not UTF-8.
        """
        return _views.text(self.tlv_bytes, TlvType.AUTHORITY, "utf-8")

    @property
    def crc32c(self) -> int | None:
        """The checksum as received (PP 2.2.3)."""
        return _views.integer(self.tlv_bytes, TlvType.CRC32C)

    @property
    def unique_id(self) -> bytes | None:
        """The sender's opaque name for the connection, up to 128 bytes (PP 2.2.5)."""
        return self.tlv(TlvType.UNIQUE_ID)

    @property
    def ssl(self) -> SslInfo | None:
        """The client's TLS connection as the proxy saw it (PP 2.2.6).

        Raises:
            InvalidTlv: If the value is shorter than its fixed part, or its sub-TLVs do not fill it exactly.
        """
        return _views.ssl(self.tlv_bytes)

    @property
    def netns(self) -> str | None:
        """The name of the network namespace (PP 2.2.7).

        Raises:
            InvalidTlv: If the value is not US-ASCII.
        """
        return _views.text(self.tlv_bytes, TlvType.NETNS, "ascii")

    @property
    def aws_vpce_id(self) -> str | None:
        """The VPC endpoint's id, from AWS network load balancers with PrivateLink.

        Raises:
            InvalidTlv: If the value is not US-ASCII.
        """
        return _views.aws_vpce_id(self.tlv_bytes)

    @property
    def azure_link_id(self) -> int | None:
        """The LINKID of the private endpoint, from Azure Private Link.

        Raises:
            InvalidTlv: If the value is not a 32-bit number.
        """
        return _views.azure_link_id(self.tlv_bytes)

    @property
    def gcp_psc_connection_id(self) -> int | None:
        """The pscConnectionId, from Google Cloud's Private Service Connect.

        Raises:
            InvalidTlv: If the value is not a 64-bit number.
        """
        return _views.integer(self.tlv_bytes, TlvType.GCP, size_bytes=8)


def _family_of(source: Endpoint | UnixEndpoint | None) -> Family:
    if source is None:
        return Family.UNSPEC
    if isinstance(source, UnixEndpoint):
        return Family.UNIX
    return Family.INET6 if ":" in source.host else Family.INET


def _transport_of(source: Endpoint | UnixEndpoint | None) -> Transport:
    return Transport.UNSPEC if source is None else Transport.STREAM


def _member(kind: type[Number], value: int, option: str) -> Number:
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
        raise UnencodableHeader(f"it takes {allowed} (PP 2.2)", option=option, value=value) from None
