"""Reading version 1, the human-readable line (PP 2.1): the direct way, for whole and sound lines."""

from __future__ import annotations

import re
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final

from ._endpoint import Endpoint
from ._header import Command, Family, ProxyHeader, Transport, new_record
from ._v1_line import LINE_LIMIT_BYTES, read_line

if TYPE_CHECKING:
    from ._options import Tolerance

# 0 to 255 without leading zeros; atomic groups, so that no digit is tried twice.
_OCTET: Final = rb"(?>1[0-9]{0,2}+|2(?>[0-4][0-9]?+|5[0-5]?+|[6-9]?+)|[3-9][0-9]?+|0)"
_IPV4: Final = rb"(" + rb"\.".join([_OCTET] * 4) + rb")"
_IPV6: Final = rb"([0-9A-Fa-f:.]{2,39}+)"  # 39 hold whatever inet_ntop writes, and the line stays within its limit
_PORTS: Final = rb" (0|[1-9][0-9]{0,4}+) (0|[1-9][0-9]{0,4}+)\r\n"
_PROXY, _INET, _INET6, _STREAM = Command.PROXY, Family.INET, Family.INET6, Transport.STREAM
_match_tcp4: Final = re.compile(rb"PROXY TCP4 " + _IPV4 + rb" " + _IPV4 + _PORTS).match
_match_tcp6: Final = re.compile(rb"PROXY TCP6 " + _IPV6 + rb" " + _IPV6 + _PORTS).match


def decode_v1(data: bytes, tolerate: Tolerance) -> tuple[ProxyHeader, int]:
    """Read the line that data starts with. `read_line` reads what is not plain TCP, and explains what is wrong.

    Raises:
        IncompleteHeader: If a valid header may still come of it.
        InvalidHeader: If no valid header can.
    """
    if match := _match_tcp6(data):  # first, so that the more expensive kind does not pay for the other pattern too
        family = _INET6
        source_text, destination_text, source_port_text, destination_port_text = match.groups()
        try:
            source = inet_ntop(AF_INET6, inet_pton(AF_INET6, source_text.decode()))
            destination = inet_ntop(AF_INET6, inet_pton(AF_INET6, destination_text.decode()))
        except OSError:
            return read_line(data[:LINE_LIMIT_BYTES], tolerate)
    elif match := _match_tcp4(data):
        family = _INET
        source_text, destination_text, source_port_text, destination_port_text = match.groups()
        source, destination = source_text.decode(), destination_text.decode()
    else:
        return read_line(data[:LINE_LIMIT_BYTES], tolerate)
    source_port, destination_port = int(source_port_text), int(destination_port_text)
    if source_port > 65535 or destination_port > 65535:
        return read_line(data[:LINE_LIMIT_BYTES], tolerate)
    source_end = new_record(Endpoint, (source, source_port))
    destination_end = new_record(Endpoint, (destination, destination_port))
    return new_record(ProxyHeader, (1, _PROXY, family, _STREAM, source_end, destination_end, b"")), match.end()
