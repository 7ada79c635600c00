"""The PROXY protocol, versions 1 and 2: a strict, complete, sans-IO codec."""

from ._codec import decode, decode_datagram
from ._decoder import Decoder
from ._encode import encode
from ._endpoint import Endpoint, EndpointLike, UnixEndpoint
from ._errors import (
    BadValueError,
    HeaderComplete,
    IncompleteHeader,
    InvalidHeader,
    InvalidOption,
    InvalidTlv,
    NotProxyHeader,
    ProxyProtocolError,
    UnencodableHeader,
)
from ._header import Command, Family, ProxyHeader, Transport
from ._options import Tolerance
from ._policy import Peer, Policy, PolicyOf, policy_by_network
from ._tlv import SslSubtype, Tlv, TlvType
from ._views import SslInfo

__all__ = [
    "BadValueError",
    "Command",
    "Decoder",
    "Endpoint",
    "EndpointLike",
    "Family",
    "HeaderComplete",
    "IncompleteHeader",
    "InvalidHeader",
    "InvalidOption",
    "InvalidTlv",
    "NotProxyHeader",
    "Peer",
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
    "decode",
    "decode_datagram",
    "encode",
    "policy_by_network",
]
