"""How a listener behind a proxy treats PROXY protocol headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from esockd_cidr import AccessList
from esockd_core._checks import kept
from esockd_core._options.special_kinds import Networks
from esockd_core._options.table import OPTIONS, check_options
from esockd_proxyproto import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER_TIMEOUT_S: Final = 5.0

JudgedAddress: TypeAlias = Literal["source", "peer", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """How a listener behind a proxy treats PROXY protocol headers.

    Attributes:
        policy: What to do about the header: an `esockd_proxyproto.Policy` or its text. "require" accepts no connection
            without one. "use", "ignore" and "reject" look whether there is one, and so anybody who can reach the
            listener can choose an address by sending one or not.
        trusted: The proxies whose headers are believed, as addresses and networks or an `AccessList`. Everybody else is
            refused at accept. None believes every peer: use it only where nobody but your proxies can reach the
            listener.
        header_timeout: How many seconds the whole header may take.
        access_rules_on: Which address `access_rules` judge: the "source" that the header names, the socket's "peer", or
            "both". Limits per source always count the source.

    Raises:
        InvalidOption: If a value is not allowed.
    """

    policy: Policy | str = Policy.REQUIRE
    trusted: Iterable[str] | AccessList | None = None
    header_timeout: float = HEADER_TIMEOUT_S
    access_rules_on: JudgedAddress = "source"

    def __post_init__(self) -> None:
        """Validate each value, and read iterators once, because they would be empty the next time."""
        object.__setattr__(self, "trusted", kept(self.trusted))
        check_options("proxy_protocol", self)
        object.__setattr__(self, "policy", Policy(self.policy))

    def trusted_list(self) -> AccessList:
        """A new list of the proxies whose headers count, for a listener to own."""
        return AccessList() if self.trusted is None else Networks().convert(self.trusted)


def read_proxy_protocol(given: object) -> ProxyOptions | None:
    """Read the option `proxy_protocol`, which may be short for `ProxyOptions`: a bool or a policy.

    Returns:
        The options; None if no header is looked for.

    Raises:
        InvalidOption: If the value is neither.
    """
    if isinstance(given, ProxyOptions):
        return given
    if given is False or given == Policy.SKIP:
        return None
    option = OPTIONS["proxy_protocol"]
    option.kind.check(option.name, given)
    return ProxyOptions() if given is True else ProxyOptions(policy=str(given))
