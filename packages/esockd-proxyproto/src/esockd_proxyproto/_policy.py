"""What a listener does about the header, by the peer that connects."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from ._errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Network, IPv6Network


class Policy(StrEnum):
    """What to do about the PROXY protocol on one connection.

    ``USE``, ``IGNORE`` and ``REJECT`` look whether there is a header. The specification forbids that for good reason
    (PP 2): a peer that can reach such a listener can choose, by sending a header or not, to be someone else. Use them
    for known peers only.
    """

    REQUIRE = "require"
    """A valid header must come first; its addresses are the connection's."""
    USE = "use"
    """If there is a header, its addresses are used."""
    IGNORE = "ignore"
    """A header is taken off if there is one; the connection keeps its own addresses."""
    REJECT = "reject"
    """A connection that sends a header is closed."""
    SKIP = "skip"
    """Nothing is read: the first byte already belongs to the handler."""


Peer: TypeAlias = "tuple[str, int] | str"
"""The address at the other end of the socket: host and port, or the path of a Unix socket (often empty)."""

PolicyOf: TypeAlias = "Callable[[Peer], Policy]"
"""Gives the policy for a peer."""


def policy_by_network(networks: Mapping[str, Policy], default: Policy) -> PolicyOf:
    """Build a policy from the networks of peers.

    Args:
        networks: Policies by network (``10.0.0.0/8``, ``2001:db8::/32``) or address; the first that holds the peer
            decides. IPv4 addresses that a dual-stack socket shows as ``::ffff:10.0.0.1`` match IPv4 networks.
        default: For every other peer, Unix sockets included.

    Returns:
        A function of the peer, for `ProxyProtocolListener`.

    Raises:
        InvalidOption: If a network or a policy is not valid.

    >>> policy = policy_by_network({"10.0.0.0/8": Policy.REQUIRE}, default=Policy.REJECT)
    >>> policy(("10.1.2.3", 41000)).name, policy(("192.0.2.9", 41000)).name
    ('REQUIRE', 'REJECT')
    """
    table = [(_to_network(network), to_policy(policy)) for network, policy in networks.items()]
    default = to_policy(default, "default")

    def policy_of(peer: Peer) -> Policy:
        if isinstance(peer, str):
            return default
        address = ip_address(peer[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return next((policy for network, policy in table if address in network), default)

    return policy_of


def to_policy(given: object, option: str = "policy") -> Policy:
    """The policy that was given as the argument `option`.

    Raises:
        InvalidOption: If it is not a policy.
    """
    try:
        return Policy(given)  # type: ignore[arg-type]  # a value of another type is a ValueError
    except ValueError:
        raise InvalidOption(f"it takes {', '.join(map(repr, map(str, Policy)))}", option=option, value=given) from None


def _to_network(given: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(given)
    except ValueError:
        reason = "a network is written as 10.0.0.0/8 or 2001:db8::/32, with no bits set beyond its prefix"
        raise InvalidOption(reason, option="networks", value=given) from None
