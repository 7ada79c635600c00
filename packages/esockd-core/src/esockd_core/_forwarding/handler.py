"""The handler that forwards: it connects each client with an upstream and starts the relay between them."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio

from esockd_core._address import Address, AddressLike
from esockd_core._connection.names import name_of
from esockd_core._errors import InvalidOption
from esockd_core._forwarding.proxy_header import ProxyVersion, proxy_header
from esockd_core._forwarding.upstreams import Upstream, UpstreamRefused, Upstreams, parse_upstream
from esockd_core._options.table import OPTIONS
from esockd_core._options.upstream_tls import UpstreamTlsOptions
from esockd_core._stats.reasons import UPSTREAM_FAILED

if TYPE_CHECKING:
    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.datagram_face import DatagramConnection
    from esockd_core._connection.face import StreamConnection
    from esockd_core._connection.stream import StreamBase
    from esockd_core._forwarding.relay import Connector


@dataclass(frozen=True, init=False)
class ForwardHandler:
    """Forwards each connection to an upstream, both ways, until both sides have finished.

    When one side finishes sending, the other is told so, and the other direction continues. A side that does not read
    pauses the other: at most the listener's `write_buffer_bytes` and one read wait for it in memory. The listener's
    `send_timeout`, `linger_timeout` and `write_buffer_bytes` apply to upstreams as to clients. Its `idle_timeout` ends
    both when neither has sent a byte or taken one.

    Datagrams go to an upstream over UDP, each client's from a socket of its own, and what the upstream sends there goes
    to the client. Nothing is kept or sent again: what one side has no room for is lost, and counted in `Stats`. A
    client ends as `upstream_failed` when ICMP tells that nobody listens at its upstream, and its next datagram may go
    to another one. In a drain, it ends once its last datagram was answered.

    A client of a stream ends as `upstream_failed` if no upstream takes it, as `upstream_reset` or
    `upstream_send_timeout` if its upstream was lost midway, and as `half_closed_timeout`. A side whose stream was cut
    short, by such an end or by a cancellation, is reset.

    Args:
        upstreams: One address or several, as `parse_address` reads them. They are tried in order; one that fails stands
            behind the others for a second. One without a scheme is reached over TCP for streams and over UDP for
            datagrams; "udp://" is for datagrams only, and "tls://" and "unix:" are for streams only.
        connect_timeout: Seconds for resolving an upstream's name, connecting to each of its addresses, and the TLS
            handshake.
        half_closed_timeout: Seconds without a byte after one side has finished; None is for ever.
        send_proxy: The version of the PROXY protocol header that tells the upstream who the client is; None for none.
            Each datagram has its own, of version 2.
        tls: TLS options of `tls://` upstreams; None is `UpstreamTlsOptions()`.

    Raises:
        InvalidOption: If a value is out of bounds, or does not apply.
    """

    upstreams: tuple[Address, ...]
    connect_timeout: float
    half_closed_timeout: float | None
    send_proxy: ProxyVersion | None
    tls: UpstreamTlsOptions | None
    _upstreams: Upstreams = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        upstreams: AddressLike | Iterable[AddressLike],
        *,
        connect_timeout: float = 5.0,
        half_closed_timeout: float | None = 60.0,
        send_proxy: ProxyVersion | None = None,
        tls: UpstreamTlsOptions | None = None,
    ) -> None:
        given: dict[str, object] = {
            "connect_timeout": connect_timeout,
            "half_closed_timeout": half_closed_timeout,
            "send_proxy": send_proxy,
        }
        for name, value in given.items():
            OPTIONS[f"forward.{name}"].kind.check(name, value)
        addresses = tuple(parse_upstream(each) for each in _several(upstreams))
        if not addresses:
            raise InvalidOption("it takes one address, or several", option="upstreams", value=upstreams)
        of_datagrams = next((each for each in addresses if each.is_datagram), None)
        of_streams = next((each for each in addresses if _is_for_streams(each)), None)
        if of_datagrams is not None and of_streams is not None:
            reason = f"{of_datagrams} is for datagrams and {of_streams} for streams: no client could have both"
            raise InvalidOption(reason, option="upstreams")
        if any(address.is_encrypted for address in addresses):
            tls = tls or UpstreamTlsOptions()
        elif tls is not None:
            hint = f'Did you mean "{addresses[0].encrypted()}"?'
            raise InvalidOption(f"it does nothing for {addresses[0]}", option="tls", hint=hint)
        values = {
            **given,
            "upstreams": addresses,
            "tls": tls,
            "_upstreams": Upstreams([Upstream(address, tls) for address in addresses], connect_timeout),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # it is frozen

    def check_listener(self, address: Address) -> None:
        """Check that clients of a listener can be forwarded.

        Args:
            address: Where it listens.

        Raises:
            InvalidOption: If an upstream is for streams and its clients send datagrams, or the other way round, or if
                no version 1 header can name them.
        """
        clients, others = ("datagrams", "streams") if address.is_datagram else ("streams", "datagrams")
        for upstream in self.upstreams:
            if _is_for_streams(upstream) if address.is_datagram else upstream.is_datagram:
                reason = f"{upstream} is for {others}, and clients of {address} send {clients}"
                hint = f"Did you mean {replace(upstream, transport='tcp')}?" if upstream.kind != "unix" else None
                raise InvalidOption(reason, option="upstreams", hint=hint)
        if address.is_datagram and self.send_proxy == "v1":
            reason = f"version 1 knows TCP only, and clients of {address} send datagrams (PP 2.1)"
            raise InvalidOption(reason, option="send_proxy", hint='Use "v2".')

    async def __call__(self, connection: StreamConnection | DatagramConnection) -> None:
        """Serve one connection."""
        client = cast("StreamBase | DatagramBase", connection)
        connector: Connector = client.site.connector(client)
        upstream = await self._connect(client, connector)
        if upstream is None:
            client.close_nowait(UPSTREAM_FAILED)
        else:
            await connector.relay(upstream, self.half_closed_timeout).run()

    async def _connect(self, client: StreamBase | DatagramBase, connector: Connector) -> Any | None:
        """Connect with the first upstream that accepts the client."""
        header = b"" if self.send_proxy is None else proxy_header(client, self.send_proxy)
        say = client.site.log.say
        for upstream in self._upstreams.in_order():
            try:
                connected = await self._connect_to(upstream, client, header, connector)
            except (OSError, UpstreamRefused) as error:
                upstream.failed()
                why = self._explain(error)
                say(logging.WARNING, "upstream %s failed: %s", upstream.address, why, connection=client)
            else:
                if upstream.is_failing and not connector.is_blind:
                    upstream.is_failing = False
                    say(logging.INFO, "upstream %s works again", upstream.address)
                return connected
        return None

    async def _connect_to(
        self, upstream: Upstream, client: StreamBase | DatagramBase, header: bytes, connector: Connector
    ) -> Any:
        """Try every address of an upstream. The remaining ones share the remaining time."""
        deadline = time.monotonic() + self.connect_timeout
        places = upstream.places
        if places is None:
            with anyio.fail_after(self.connect_timeout):
                places = await upstream.find_places()
        if places:
            first = upstream.turn % len(places)
            places = [*places[first:], *places[:first]]
        failure: Exception = OSError("its name has no address")
        for position, place in enumerate(places):
            share_s = max(0.0, deadline - time.monotonic()) / (len(places) - position)
            if name_of(place[1]) == client.sockname:
                failure = UpstreamRefused("it is this listener itself")  # a typing error would go round for ever
                continue
            try:
                return await connector.connect(place, upstream, header, share_s)
            except (OSError, UpstreamRefused) as error:
                failure = error
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    def _explain(self, error: Exception) -> str:
        match error:
            case TimeoutError(errno=None):
                return f"no answer in {self.connect_timeout:g} s"
            case BlockingIOError():
                return "its backlog is full"  # unix(7)
            case OSError(errno=int() as number) if not isinstance(error, socket.gaierror):
                return os.strerror(number)
            case OSError(strerror=str() as text):
                return text
        return str(error)


def _is_for_streams(upstream: Address) -> bool:
    return upstream.kind == "unix" or upstream.transport == "tls"


def _several(upstreams: object) -> Iterable[object]:
    """Several upstreams; a pair of host and port is one."""
    if isinstance(upstreams, str | bytes | int | Address | Path | socket.socket):
        return (upstreams,)
    if isinstance(upstreams, tuple) and len(upstreams) == 2 and isinstance(upstreams[1], int):
        return (upstreams,)
    if isinstance(upstreams, Iterable):
        return upstreams
    return (upstreams,)
