"""What a network is, in words."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esockd_cidr import Network


def describe_network(text: str, network: Network) -> dict[str, object]:
    """Describe a network.

    Args:
        text: As it was written.
        network: As it was read.

    Returns:
        Facts by name; None for what does not apply.
    """
    kind = ipaddress.IPv4Network if network.version == 4 else ipaddress.IPv6Network
    known = kind((network.first, network.prefixlen))
    note = None
    if network.host_bits:
        note = f"bits to the right of the prefix are set and do not count: {text} means {network}"
    elif network.version == 4 and ":" in text:
        note = "an IPv4-mapped address counts as the IPv4 address it stands for"
    return {
        "network": str(network),
        "version": f"IPv{network.version}",
        "first": str(known.network_address),
        "last": str(known.broadcast_address),
        "addresses": known.num_addresses,
        "whose": _whose(known),
        "note": note,
    }


def _whose(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    for name, is_it in (
        ("this machine's (loopback)", network.is_loopback),
        ("the link's (link-local)", network.is_link_local),
        ("groups' (multicast)", network.is_multicast),
        ("nobody's (unspecified)", network.is_unspecified),
        ("a private network's, or reserved for another use", network.is_private),
        ("anybody's on the Internet", network.is_global),
    ):
        if is_it:
            return name
    return "several of these"
