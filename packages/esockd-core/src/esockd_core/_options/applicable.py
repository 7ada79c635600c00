"""The options that do nothing for datagrams; giving one is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_core._errors import InvalidOption
from esockd_core._options.table import OPTIONS
from esockd_proxyproto import Policy

if TYPE_CHECKING:
    from esockd_core._address import Address
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._options.proxy import ProxyOptions

FOR_STREAMS: Final = {
    "acceptors": "one reader takes all datagrams of a socket",
    "when_full": "datagrams do not wait for room in the kernel's queue",
    "when_limited": "datagrams do not wait for a token in the kernel's queue",
    "refuse_with": "a refused peer is sent nothing, or others could have it sent to a victim",
    "send_timeout": "nobody acknowledges datagrams",
    "linger_timeout": "there is nothing to wait for when a peer is forgotten",
    "write_buffer_bytes": "datagrams that are sent do not wait in this process",
    "write_limit_bytes": "datagrams that are sent do not wait in this process",
}
"""The listener's own options that do nothing for datagrams, with the reason."""


def require_applicable_kind(address: Address, options: ListenerOptions) -> None:
    """Refuse options that do nothing for an address, as those of streams do on a datagram address.

    Raises:
        InvalidOption: If one does not apply to the address.
    """
    if address.transport == "dtls" and options.udp.session_id is not None:
        reason = f"it does nothing for {address}: what comes is encrypted, and known by its address only"
        raise InvalidOption(reason, option="udp.session_id", value=options.udp.session_id)
    for name, why in FOR_STREAMS.items() if address.is_datagram else ():
        if (value := getattr(options, name)) != OPTIONS[name].default:
            raise InvalidOption(f"it does nothing for {address}: {why}", option=name, value=value)
    if address.is_datagram and options.proxy is not None:
        _check_proxy(address, options, options.proxy)


def _check_proxy(address: Address, options: ListenerOptions, proxy: ProxyOptions) -> None:
    """Refuse what does not go together with the PROXY headers of datagrams."""
    if proxy.policy is not Policy.REQUIRE:
        reason = f"each datagram on {address} needs a header: a payload may look like one"
        raise InvalidOption(reason, option="proxy_protocol.policy", value=str(proxy.policy))
    for name in ("session_id", "health_check"):
        if getattr(options.udp, name) is not None:
            reason = "it does not go together with proxy_protocol"
            raise InvalidOption(reason, option=f"udp.{name}", value=getattr(options.udp, name))
