"""Version 1, the human-readable line (PP 2.1): reading, straight for what is whole and sound."""

from __future__ import annotations

import re
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final

from ._header import Command, Endpoint, Family, ProxyHeader, Transport
from ._v1_line import LINE_LIMIT_BYTES, read_line

if TYPE_CHECKING:
    from ._options import Options

_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_INET: Final = rb"(" + _OCTET + rb"(?:\." + _OCTET + rb"){3})"
_INET6: Final = rb"([0-9A-Fa-f:.]{2,45})"
_PORTS: Final = rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
_match_tcp4: Final = re.compile(rb"PROXY TCP4 " + _INET + rb" " + _INET + _PORTS).match
_match_tcp6: Final = re.compile(rb"PROXY TCP6 " + _INET6 + rb" " + _INET6 + _PORTS).match


def decode_v1(data: bytes, options: Options) -> tuple[ProxyHeader, int]:
    """Read the line that data starts with; `read_line` takes what is not plain TCP, and explains what is wrong.

    Raises:
        IncompleteHeader: A valid header may still come of it.
        InvalidHeader: None can.
    """
    if match := _match_tcp4(data):
        source, destination, source_port, destination_port = match.groups()
        ports = int(source_port), int(destination_port)
        if ports[0] < 65536 and ports[1] < 65536:
            endpoints = Endpoint(source.decode(), ports[0]), Endpoint(destination.decode(), ports[1])
            return ProxyHeader(1, Command.PROXY, Family.INET, Transport.STREAM, *endpoints), match.end()
    elif (match := _match_tcp6(data)) and match.end() <= LINE_LIMIT_BYTES:
        source, destination, source_port, destination_port = match.groups()
        ports = int(source_port), int(destination_port)
        try:
            hosts = [inet_ntop(AF_INET6, inet_pton(AF_INET6, text.decode())) for text in (source, destination)]
        except OSError:
            return read_line(data[:LINE_LIMIT_BYTES], options.tolerate)
        if ports[0] < 65536 and ports[1] < 65536:
            endpoints = Endpoint(hosts[0], ports[0]), Endpoint(hosts[1], ports[1])
            return ProxyHeader(1, Command.PROXY, Family.INET6, Transport.STREAM, *endpoints), match.end()
    return read_line(data[:LINE_LIMIT_BYTES], options.tolerate)
