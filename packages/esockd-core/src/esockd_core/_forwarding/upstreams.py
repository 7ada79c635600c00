"""The upstreams of a forwarder, in order, with those that failed lately behind the others."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import anyio

from esockd_core._address import ADDRESS_FORMS, Address, is_ip_address, parse_address
from esockd_core._errors import InvalidAddress, InvalidOption
from esockd_core._tls.engine import TlsEngine

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from esockd_core._options.upstream_tls import UpstreamTlsOptions

RETRY_AFTER_S: Final = 1.0  # how long an upstream that failed stands behind the others
UPSTREAM_FORMS: Final = (
    'Write "host:6379", "[::1]:6379", 6379 for this machine, or "unix:/path", each after "tls://" if wanted; '
    '"udp://host:53" is for datagrams only.'
)

CLOSED_AT_ONCE: Final = "it closed the connection at once"

Place: TypeAlias = tuple[int, Any]
"""An address family and an address of it, as connect(2) takes it."""


class UpstreamRefused(Exception):  # noqa: N818 (it is a verdict)
    """An upstream that can be reached does not serve the client, or should not."""


def connect_unix(path: str) -> socket.socket:
    """Connect to a Unix socket, which accepts at once or not at all.

    Raises:
        OSError: If it refuses.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


def parse_upstream(value: object) -> Address:
    """Read the address of an upstream.

    Raises:
        InvalidOption: If it is not an address, or cannot be connected to.
    """
    if isinstance(value, str) and value.rpartition("//")[2].startswith(":"):
        raise InvalidOption("the host is missing", option="upstreams", value=value, hint=UPSTREAM_FORMS)
    try:
        address = parse_address(value)
    except InvalidAddress as error:
        hint = UPSTREAM_FORMS if error.hint == ADDRESS_FORMS else error.hint
        raise InvalidOption(error.reason, option="upstreams", value=value, hint=hint) from error
    if address.transport == "dtls":
        raise InvalidOption("a forwarder does not speak DTLS to upstreams", option="upstreams", value=str(address))
    if address.kind not in ("host", "loopback", "unix") or address.port == 0:
        raise InvalidOption("nothing can connect to it", option="upstreams", value=str(address), hint=UPSTREAM_FORMS)
    return address


class Upstream:
    """One upstream, and whether it failed lately.

    Attributes:
        address: Its address.
        context: The TLS context; None without TLS.
        server_name: The name that its certificate has to have.
        places: The addresses to connect to; None if a name has to be resolved first.
        turn: Which of its places is the first for the next client of datagrams, which find out late that one is closed.
    """

    def __init__(self, address: Address, tls: UpstreamTlsOptions | None) -> None:
        self.address = address
        self.context: ssl.SSLContext | None = None
        self.server_name: str | None = None
        if tls is not None and address.is_encrypted:
            self.context = tls.context
            self.server_name = tls.server_name or (address.host if address.kind != "loopback" else "localhost")
            if self.server_name is None and tls.verify:
                reason = f"it is needed for {address}, which has no host for its certificate to name"
                raise InvalidOption(reason, option="tls.server_name", value=None)
            try:
                TlsEngine(self.context, self.server_name)
            except ValueError as error:
                raise InvalidOption(str(error), option="tls.server_name", value=self.server_name) from error
        self.places = self._known_places()
        self.turn = 0
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
        """Resolve its name to addresses, in the resolver's order.

        Raises:
            OSError: If the name has no address, or no resolver answers.
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
        """The upstreams in the order to try them.

        Those that failed within the last second come last, so no client waits for them while another may serve it.
        After that second one client tries again. Until it has succeeded, other clients keep the old order.
        """
        if not any(upstream.is_failing for upstream in self._upstreams):
            return self._upstreams
        now = time.monotonic()
        order = sorted(self._upstreams, key=lambda upstream: upstream.is_failing and now < upstream.retry_at)
        if order[0].is_failing:
            order[0].retry_at = now + self._connect_timeout_s
        return order
