"""Version 1, the human-readable line (PP 2.1): reading, straight for what is whole and sound."""

from __future__ import annotations

import re
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final

from ._header import Command, Endpoint, Family, ProxyHeader, Transport, new_record
from ._v1_line import LINE_LIMIT_BYTES, read_line

if TYPE_CHECKING:
    from ._options import Tolerance

# 0 to 255 without leading zeros; atomic groups, so that no digit is tried twice.
_OCTET: Final = rb"(?>1[0-9]{0,2}+|2(?>[0-4][0-9]?+|5[0-5]?+|[6-9]?+)|[3-9][0-9]?+|0)"
_IPV4: Final = rb"(" + rb"\.".join([_OCTET] * 4) + rb")"
_IPV6: Final = rb"([0-9A-Fa-f:.]{2,45}+)"
_PORTS: Final = rb" (0|[1-9][0-9]{0,4}+) (0|[1-9][0-9]{0,4}+)\r\n"
_PROXY, _INET, _INET6, _STREAM = Command.PROXY, Family.INET, Family.INET6, Transport.STREAM
_match_tcp4: Final = re.compile(rb"PROXY TCP4 " + _IPV4 + rb" " + _IPV4 + _PORTS).match
_match_tcp6: Final = re.compile(rb"PROXY TCP6 " + _IPV6 + rb" " + _IPV6 + _PORTS).match


def decode_v1(data: bytes, tolerate: Tolerance) -> tuple[ProxyHeader, int]:
    """Read the line that data starts with; `read_line` takes what is not plain TCP, and explains what is wrong.

    Raises:
        IncompleteHeader: A valid header may still come of it.
        InvalidHeader: None can.
    """
    if match := _match_tcp4(data):
        source, destination, source_port_text, destination_port_text = match.groups()
        source_port, destination_port = int(source_port_text), int(destination_port_text)
        if source_port < 65536 and destination_port < 65536:
            endpoints = (
                new_record(Endpoint, (source.decode(), source_port)),
                new_record(Endpoint, (destination.decode(), destination_port)),
            )
            return new_record(ProxyHeader, (1, _PROXY, _INET, _STREAM, *endpoints, b"")), match.end()
    elif (match := _match_tcp6(data)) and match.end() <= LINE_LIMIT_BYTES:
        source, destination, source_port_text, destination_port_text = match.groups()
        source_port, destination_port = int(source_port_text), int(destination_port_text)
        try:
            source = inet_ntop(AF_INET6, inet_pton(AF_INET6, source.decode()))
            destination = inet_ntop(AF_INET6, inet_pton(AF_INET6, destination.decode()))
        except OSError:
            return read_line(data[:LINE_LIMIT_BYTES], tolerate)
        if source_port < 65536 and destination_port < 65536:
            endpoints = (
                new_record(Endpoint, (source, source_port)),
                new_record(Endpoint, (destination, destination_port)),
            )
            return new_record(ProxyHeader, (1, _PROXY, _INET6, _STREAM, *endpoints, b"")), match.end()
    return read_line(data[:LINE_LIMIT_BYTES], tolerate)
