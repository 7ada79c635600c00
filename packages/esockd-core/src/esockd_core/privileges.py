"""Opening ports as root, and serving them as another user.

Root opens the addresses, gives itself another user, and only then opens the listeners, which take over the sockets::

    account = find_account("www-data")
    anyio.run(open_ahead, "*:443", options)
    account.become()
    ...
    await server.open("edge", "*:443", handle, options)

The kernel queues clients meanwhile, so that none is served as root.
"""

from __future__ import annotations

from esockd_core._address import parse_address
from esockd_core._errors import InvalidOption
from esockd_core._options.listener import ListenerOptions
from esockd_core._platform.accounts import Account, find_account
from esockd_core._sockets.handed_over import keep
from esockd_core._sockets.opening import open_sockets
from esockd_core._sockets.shared import open_shared_sockets

__all__ = ["Account", "find_account", "open_ahead"]


async def open_ahead(address: object, options: ListenerOptions | None = None, *, worker_count: int = 1) -> None:
    """Open the port of an address now, for the listener that this process will open on the same address.

    Unix sockets are left to the listener, since their files should belong to the user that serves them. So are sockets
    that somebody else has opened.

    Args:
        address: Where to listen; see `parse_address`.
        options: The options of the listener.
        worker_count: How many `Workers` will share the address.

    Raises:
        InvalidAddress: If the address is not valid.
        InvalidOption: If an option does not apply to the address, or if `worker_count` is not a whole number above 0.
        AddressInUse: If somebody else listens there.
        CannotBind: If the address cannot be opened.
    """
    count = _checked_count(worker_count)
    where, options = parse_address(address), options or ListenerOptions()
    if where.kind not in ("loopback", "everywhere", "host"):
        return
    if where.is_datagram:
        keep(await open_sockets(where, options.tcp, options.unix, options.udp))
    else:
        keep((await open_shared_sockets(where, count, options.tcp, options.unix)).opened)


def _checked_count(worker_count: object) -> int:
    if not isinstance(worker_count, int) or isinstance(worker_count, bool) or worker_count < 1:
        raise InvalidOption("it takes a whole number above 0", option="worker_count", value=worker_count)
    return worker_count
