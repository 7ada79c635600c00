"""The PROXY protocol header that a forwarder sends ahead of a client's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from esockd_core._connection.datagram_face import DatagramConnection
from esockd_proxyproto import (
    Command,
    Endpoint,
    ProxyHeader,
    SslInfo,
    SslSubtype,
    Tlv,
    TlvType,
    Transport,
    UnixEndpoint,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._connection.face import Connection
    from esockd_core._options.listener import PeerName
    from esockd_core._tls.facts import TlsInfo

AnyEndpoint: TypeAlias = Endpoint | UnixEndpoint
ProxyVersion: TypeAlias = Literal["v1", "v2"]
PROXY_VERSIONS: Final[dict[str, int]] = {"v1": 1, "v2": 2}

# Bits of the field `client` (PP 2.2.6). Whether the certificate came with this very handshake or earlier in the session
# is not known here. The latter bit is right for both.
CLIENT_SSL: Final = 0x01
CLIENT_CERT_SESS: Final = 0x04


def proxy_header(connection: Connection, version: ProxyVersion) -> bytes:
    """The header that tells an upstream who the client is.

    Source and destination come from the header that this listener received, otherwise from the accepted socket. A
    client that the version cannot name, such as that of a Unix socket, is `UNKNOWN` in version 1 and `LOCAL` in version
    2. The upstream then uses the addresses of its own socket (PP 2.1, 2.2).

    Version 2 also describes the client's TLS: server name, application protocol, version, cipher, and the certificate's
    common name.
    """
    source, destination = _endpoints(connection)
    number = PROXY_VERSIONS[version]
    if number == 1:
        if isinstance(source, UnixEndpoint):
            source = destination = None
        return encode(ProxyHeader(1, source=source, destination=destination))
    tlvs = [] if connection.tls is None else list(_tlvs(connection.tls))
    command = Command.LOCAL if source is None else Command.PROXY
    transport = None
    if source is not None and isinstance(connection, DatagramConnection):
        transport = Transport.DGRAM
    return encode(ProxyHeader(2, command, None, transport, source=source, destination=destination, tlvs=tlvs))


def _endpoints(connection: Connection) -> tuple[AnyEndpoint | None, AnyEndpoint | None]:
    header = connection.proxy
    if header is not None and header.source is not None:
        return header.source, header.destination
    source, destination = _endpoint(connection.peername), _endpoint(connection.sockname)
    if source is None or destination is None:
        return None, None
    return source, destination


def _endpoint(name: PeerName) -> Endpoint | None:
    return Endpoint(name[0].partition("%")[0], name[1]) if isinstance(name, tuple) else None


def _tlvs(tls: TlsInfo) -> Iterator[Tlv]:
    if tls.alpn is not None:
        yield Tlv(TlvType.ALPN, tls.alpn.encode())
    if tls.server_name is not None:
        yield Tlv(TlvType.AUTHORITY, tls.server_name.encode())
    details = [(SslSubtype.VERSION, tls.version), (SslSubtype.CIPHER, tls.cipher)]
    client, verify, certificate = CLIENT_SSL, 1, tls.peer_certificate
    if certificate is not None:
        client |= CLIENT_CERT_SESS
        verify = 0 if certificate.is_verified else 1
        details.append((SslSubtype.COMMON_NAME, certificate.common_name))
    yield SslInfo(client, verify, tuple(Tlv(kind, text.encode()) for kind, text in details if text)).to_tlv()
