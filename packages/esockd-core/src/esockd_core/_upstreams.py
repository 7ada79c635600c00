"""Where a forwarder forwards to: its upstreams in order, and those that failed lately behind the others."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import anyio

from esockd_core._address import FORMS as ADDRESS_FORMS
from esockd_core._address import Address, is_ip_address, parse_address
from esockd_core._errors import InvalidAddress, InvalidOption
from esockd_core._tls import TlsEngine

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from esockd_core._upstream_tls import UpstreamTlsOptions

RETRY_AFTER_S: Final = 1.0  # how long an upstream that failed stands behind the others
FORMS: Final = '"host:6379", "[::1]:6379", 6379 for this machine, or "unix:/path", each after "tls://" if wanted'

CLOSED_AT_ONCE: Final = "it closed the connection at once"

Place: TypeAlias = tuple[int, Any]
"""An address family and an address of it, as connect(2) takes it."""


class UpstreamRefused(Exception):  # noqa: N818 (it is a verdict)
    """An upstream that can be reached does not serve, or should not."""


def connect_unix(path: str) -> socket.socket:
    """Connect to a Unix socket, which takes the connection at once or not at all.

    Raises:
        OSError: It does not.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


def parse_upstream(value: object) -> Address:
    """Read where to forward to.

    Raises:
        InvalidOption: It is no address, or none that can be connected to.
    """
    if isinstance(value, str) and value.rpartition("//")[2].startswith(":"):
        raise InvalidOption(f'bad upstream "{value}": the host is missing. Use {FORMS}.')
    try:
        address = parse_address(value)
    except InvalidAddress as error:
        text = str(error).replace("bad address", "bad upstream", 1).replace(ADDRESS_FORMS, FORMS)
        raise InvalidOption(text.replace("0 to 65535, where 0 takes any free port", "1 to 65535")) from error
    if address.kind not in ("host", "loopback", "unix") or address.is_datagram or address.port == 0:
        raise InvalidOption(f'bad upstream "{address}": nothing can connect to it. Use {FORMS}.')
    return address


class Upstream:
    """One upstream, and how it did lately.

    Attributes:
        address: Where it is.
        context: What to speak TLS with, None for none.
        server_name: The name that its certificate is to have.
        places: Where to connect to; None where a name has to be looked up first.
    """

    def __init__(self, address: Address, tls: UpstreamTlsOptions | None) -> None:
        self.address = address
        self.context: ssl.SSLContext | None = None
        self.server_name: str | None = None
        if tls is not None and address.is_encrypted:
            self.context = tls.context
            self.server_name = tls.server_name or (address.host if address.kind != "loopback" else "localhost")
            if self.server_name is None and tls.verify:
                raise InvalidOption(f"{address}: whose certificate is it to have? Give server_name, or verify=False.")
            try:
                TlsEngine(self.context, self.server_name)
            except ValueError as error:
                raise InvalidOption(f"server_name {self.server_name!r} is none: {error}") from error
        self.places = self._known_places()
        self.is_failing = False
        self.retry_at = 0.0

    def _known_places(self) -> Sequence[Place] | None:
        address = self.address
        if address.kind == "unix":
            path = cast("str", address.path)
            return ((socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path),)
        if address.kind == "loopback":
            return ((socket.AF_INET, ("127.0.0.1", address.port)), (socket.AF_INET6, ("::1", address.port)))
        host = cast("str", address.host)
        if "%" in host or not is_ip_address(host):  # a name, or an interface whose number may change
            return None
        return ((socket.AF_INET6 if ":" in host else socket.AF_INET, (host, address.port)),)

    async def find_places(self) -> Sequence[Place]:
        """Every address of its name, in the resolver's order.

        Raises:
            OSError: The name has none, or nobody can be asked.
        """
        found = await anyio.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        return [(family, place) for family, _, _, _, place in found]

    def failed(self) -> None:
        """Remember a failure for a while."""
        self.is_failing = True
        self.retry_at = time.monotonic() + RETRY_AFTER_S


class Upstreams:
    """The upstreams of one forwarder."""

    def __init__(self, upstreams: Sequence[Upstream], connect_timeout_s: float) -> None:
        self._upstreams = tuple(upstreams)
        self._connect_timeout_s = connect_timeout_s

    def in_order(self) -> Sequence[Upstream]:
        """Which to try, one after the other.

        Those that failed within the last second come last: no client waits for them while another may serve it. After
        that second one client tries again, and until it knows more the others go on without.
        """
        if not any(upstream.is_failing for upstream in self._upstreams):
            return self._upstreams
        now = time.monotonic()
        order = sorted(self._upstreams, key=lambda upstream: upstream.is_failing and now < upstream.retry_at)
        if order[0].is_failing:
            order[0].retry_at = now + self._connect_timeout_s
        return order
