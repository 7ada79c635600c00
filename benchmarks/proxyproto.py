"""Compare PROXY protocol decoders in one run: CPU time for one header, from the bytes to an object.

    python -m tools.venv .venv-bench bench-proxyproto
    .venv-bench/bin/python benchmarks/proxyproto.py
    .venv-bench/bin/python benchmarks/proxyproto.py --rounds 15 --headers 20000

Every decoder gets the same bytes through the door its own package uses, and has to find the right source before it is
timed. The coroutine of aiosmtpd reads from memory and is stepped by hand: no event loop is in its figure. The peers do
not verify a checksum; proxy-protocol would if the package crc32c were installed, which it does not ask for. Nor does
proxy-protocol write addresses as text, which for IPv6 is a third of our time and more the fewer groups are zero.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from esockd_proxyproto import Decoder, Endpoint, ProxyHeader, Tlv, TlvType, decode, encode
from harness.machine import CpuShares, facts
from harness.rounds import Sample, Series, interleaved
from harness.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Callable

# The peers are not installed where types are checked.
get_proxy: Any = import_module("aiosmtpd.proxy_protocol").get_proxy
DETECT: Any = import_module("proxyprotocol.detect").ProxyProtocolDetect()
V1Parser: Any = import_module("twisted.protocols.haproxy._v1parser").V1Parser
V2Parser: Any = import_module("twisted.protocols.haproxy._v2parser").V2Parser

PACKAGES = ("esockd-proxyproto", "proxy-protocol", "Twisted", "aiosmtpd")
A4, B4 = Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)
A6, B6 = Endpoint("2001:db8::c0de:1", 56324), Endpoint("2001:db8::c0de:7", 443)
LONG_A6 = Endpoint("2001:db8:a1b2:c3d4:1111:2222:3333:1", 56324)
LONG_B6 = Endpoint("2001:db8:a1b2:c3d4:e5:f6:a7:7", 443)
TLVS = [
    Tlv(TlvType.ALPN, b"h2"),
    Tlv(TlvType.AUTHORITY, b"www.example.com"),
    Tlv(TlvType.UNIQUE_ID, b"0123456789abcdef"),
]
HEADERS = {
    "v1 TCP4": ProxyHeader(1, source=A4, destination=B4),
    "v1 TCP6": ProxyHeader(1, source=A6, destination=B6),
    "v2 IPv4": ProxyHeader(source=A4, destination=B4),
    "v2 IPv4, 3 TLVs": ProxyHeader(source=A4, destination=B4, tlvs=TLVS),
    "v2 IPv6, 3 TLVs": ProxyHeader(source=A6, destination=B6, tlvs=TLVS),
    "v2 IPv6 of 8 groups, 3 TLVs": ProxyHeader(source=LONG_A6, destination=LONG_B6, tlvs=TLVS),
    "v2 IPv4, 2 TLVs and CRC32C": ProxyHeader(source=A4, destination=B4, tlvs=[*TLVS[:2], Tlv(TlvType.CRC32C, b"")]),
}


class Memory:
    """The reader that aiosmtpd asks for, over bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    async def read(self, n: int = -1) -> bytes:
        """As asyncio's StreamReader."""
        return await self.readexactly(len(self._data) - self._at if n < 0 else n)

    async def readexactly(self, n: int) -> bytes:
        """As asyncio's StreamReader."""
        start, self._at = self._at, self._at + n
        return self._data[start : self._at]

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """As asyncio's StreamReader."""
        return await self.readexactly(self._data.index(separator, self._at) + len(separator) - self._at)


def esockd(data: bytes) -> Any:
    """Ours."""
    return decode(data)[0].source


def esockd_decoder(data: bytes) -> Any:
    """Ours, the incremental way, all bytes at once."""
    decoder = Decoder()
    decoder.feed(data)
    return decoder.header.source  # type: ignore[union-attr]


def proxy_protocol(data: bytes) -> Any:
    """The package proxy-protocol."""
    return DETECT.unpack(data).source


def twisted(data: bytes) -> Any:
    """The parsers behind Twisted's HAProxy wrapper."""
    parser = V1Parser() if data[:1] == b"P" else V2Parser()
    info, _ = parser.feed(data)
    return info.source.host, info.source.port


def aiosmtpd(data: bytes) -> Any:
    """The parser behind aiosmtpd's proxy_protocol_timeout."""
    try:
        get_proxy(Memory(data)).send(None)
    except StopIteration as stop:
        return stop.value.src_addr, stop.value.src_port
    raise AssertionError


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "esockd decode": esockd,
    "esockd Decoder": esockd_decoder,
    "proxy-protocol": proxy_protocol,
    "Twisted": twisted,
    "aiosmtpd": aiosmtpd,
}


def cpu_ns(decoder: Callable[[bytes], object], data: bytes, headers: int) -> float:
    """CPU time for one header, in nanoseconds."""
    repeat = range(headers)
    start = time.process_time_ns()
    for _ in repeat:
        decoder(data)
    return (time.process_time_ns() - start) / headers


def compare(header: ProxyHeader, rounds: int, headers: int) -> dict[str, Series]:
    """Every decoder on one header, round by round."""
    data = encode(header)
    assert isinstance(header.source, Endpoint)
    for name, decoder in DECODERS.items():
        host, port = decoder(data)
        if (ip_address(str(host)), port) != (ip_address(header.source.host), header.source.port):
            sys.exit(f"error: {name} reads {host} {port} where {header.source} was sent")
        cpu_ns(decoder, data, headers // 10)
    return interleaved(
        DECODERS, rounds, lambda name: Sample(cpu_ns(DECODERS[name], data, headers), {}), lambda _progress: None
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--headers", type=int, default=10_000, help="decoded by each in one round")
    options = parser.parse_args()
    machine = facts(CpuShares(frozenset({0}), frozenset({1})), PACKAGES)
    del machine["servers and client"]
    for fact, value in machine.items():
        print(f"- {fact}: {value}")
    print(f"\nMicroseconds of CPU for one header, medians of {options.rounds} interleaved rounds; in brackets the")
    print("median over the rounds of the ratio to `esockd decode` in the same round.\n")
    rows = []
    for title, header in HEADERS.items():
        results = compare(header, options.rounds, options.headers)
        own = results["esockd decode"]
        cells = [
            f"{'~ ' if series.is_wide else ''}{series.middle / 1000:.2f} ({series.ratio_to(own):.1f})"
            for series in results.values()
        ]
        rows.append([title, f"{1e6 / own.middle:,.0f}k", *cells])
    print(markdown(["header", "esockd decode a second", *DECODERS], rows))


if __name__ == "__main__":
    main()
