"""The PROXY protocol, versions 1 and 2: a strict, complete, sans-IO codec."""

from ._codec import decode, decode_datagram
from ._decoder import Decoder
from ._encode import encode
from ._errors import (
    IncompleteHeader,
    InvalidHeader,
    InvalidTlv,
    NotProxyHeader,
    ProxyProtocolError,
    UnencodableHeader,
)
from ._header import Command, Endpoint, Family, ProxyHeader, Transport, UnixEndpoint
from ._options import Tolerance
from ._policy import Policy, PolicyOf, Upstream, policy_by_network
from ._tlv import SslSubtype, Tlv, TlvType
from ._views import SslInfo

__all__ = [
    "Command",
    "Decoder",
    "Endpoint",
    "Family",
    "IncompleteHeader",
    "InvalidHeader",
    "InvalidTlv",
    "NotProxyHeader",
    "Policy",
    "PolicyOf",
    "ProxyHeader",
    "ProxyProtocolError",
    "SslInfo",
    "SslSubtype",
    "Tlv",
    "TlvType",
    "Tolerance",
    "Transport",
    "UnencodableHeader",
    "UnixEndpoint",
    "Upstream",
    "decode",
    "decode_datagram",
    "encode",
    "policy_by_network",
]
