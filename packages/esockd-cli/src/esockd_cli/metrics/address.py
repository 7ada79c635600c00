"""Where metrics are served."""

from __future__ import annotations

from esockd_core import Address, InvalidAddress, parse_address


def read_metrics_address(text: str) -> Address:
    """Read where metrics are served; a port alone, also as ":9100", is for this machine only.

    Raises:
        InvalidAddress: It is no address, or one of datagrams or TLS.
    """
    is_port = text.startswith(":") and text[1:].isdecimal()
    address = parse_address(text[1:] if is_port else text)
    if address.transport in ("tls", "udp", "dtls"):
        raise InvalidAddress("metrics are served over TCP or a Unix socket, without TLS", option="metrics", value=text)
    return address
