"""What a listener does about the header, by the upstream that connects."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Policy(StrEnum):
    """What to do about the PROXY protocol on one connection.

    ``USE``, ``IGNORE`` and ``REJECT`` look whether a header is there. The specification forbids that for good reason
    (PP 2): whoever can reach such a listener can choose, by sending a header or none, to be someone else. Give them to
    known upstreams only.
    """

    REQUIRE = "require"
    """A valid header must come first; its addresses are the connection's."""
    USE = "use"
    """A header's addresses are used when there is one."""
    IGNORE = "ignore"
    """A header is taken off when there is one; the connection keeps its own addresses."""
    REJECT = "reject"
    """A connection that sends a header is closed."""
    SKIP = "skip"
    """Nothing is looked at: the first byte already belongs to the handler."""


Upstream: TypeAlias = "tuple[str, int] | str"
"""The address at the other end of the socket: host and port, or the path of a Unix socket (often empty)."""

PolicyOf: TypeAlias = "Callable[[Upstream], Policy]"
"""Gives the policy for an upstream."""


def policy_by_network(networks: Mapping[str, Policy], default: Policy) -> PolicyOf:
    """Build a policy from the networks of upstreams.

    Args:
        networks: Policies by network (``10.0.0.0/8``, ``2001:db8::/32``) or address; the first that holds the upstream
            decides. IPv4 addresses that a dual-stack socket shows as ``::ffff:10.0.0.1`` match IPv4 networks.
        default: For every other upstream, Unix sockets included.

    Returns:
        A function of the upstream, for `ProxyProtocolListener`.

    Raises:
        ValueError: A network is not written as one, or has bits set beyond its prefix.

    >>> policy = policy_by_network({"10.0.0.0/8": Policy.REQUIRE}, default=Policy.REJECT)
    >>> policy(("10.1.2.3", 41000)).name, policy(("192.0.2.9", 41000)).name
    ('REQUIRE', 'REJECT')
    """
    table = [(ip_network(network), Policy(policy)) for network, policy in networks.items()]
    default = Policy(default)

    def policy_of(upstream: Upstream) -> Policy:
        if isinstance(upstream, str):
            return default
        address = ip_address(upstream[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return next((policy for network, policy in table if address in network), default)

    return policy_of
