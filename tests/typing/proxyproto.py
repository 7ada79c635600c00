# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Typed usage of esockd_proxyproto: checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from esockd_proxyproto import (
    Decoder,
    Endpoint,
    Policy,
    ProxyHeader,
    SslInfo,
    Tlv,
    Tolerance,
    UnixEndpoint,
    decode,
    decode_datagram,
    encode,
    policy_by_network,
)
from esockd_proxyproto.listener import ProxyProtocolListener
from esockd_proxyproto.streams import ProxiedStream, look_for_header, receive_header, send_header

if TYPE_CHECKING:
    from anyio.abc import ByteStream, Listener, SocketStream


def codec(data: bytes, view: memoryview) -> None:
    """Reading and writing."""
    assert_type(decode(data), tuple[ProxyHeader, int])
    assert_type(decode_datagram(view, max_length=65535), tuple[ProxyHeader, bytes])
    assert_type(Decoder(tolerate=Tolerance.LF_LINE_END | Tolerance.EXTRA_BLANKS).feed(data), ProxyHeader | None)
    header, _ = decode(data)
    assert_type(header.source, Endpoint | UnixEndpoint | None)
    assert_type(header.tlvs, tuple[Tlv, ...])
    assert_type(header.ssl, SslInfo | None)
    assert_type(encode(header.replace(version=1), checksum=True), bytes)


async def streams(stream: ByteStream, listener: Listener[SocketStream]) -> None:
    """Around AnyIO."""
    assert_type(await receive_header(stream), ProxyHeader)
    assert_type(await look_for_header(stream), tuple[ProxyHeader | None, bytes])
    await send_header(stream, ProxyHeader())
    policy = policy_by_network({"10.0.0.0/8": Policy.REQUIRE}, default=Policy.SKIP)
    proxied: Listener[ProxiedStream] = ProxyProtocolListener(listener, policy)
    await proxied.aclose()


def what_is_wrong_is_found() -> None:
    """Each line is an error to both checkers."""
    decode("PROXY UNKNOWN\r\n")  # type: ignore[arg-type]
    Endpoint("192.0.2.1", "80")  # type: ignore[arg-type]
