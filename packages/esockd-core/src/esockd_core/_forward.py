"""The handler that forwards: it connects each client with an upstream, and is out of the way from then on."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio

from esockd_core._address import Address, AddressLike
from esockd_core._connection import name_of
from esockd_core._errors import InvalidOption
from esockd_core._proxy_out import PROXY_VERSIONS, ProxyVersion, proxy_header
from esockd_core._relay import UPSTREAM_FAILED
from esockd_core._upstream_tls import UpstreamTlsOptions
from esockd_core._upstreams import Upstream, UpstreamRefused, Upstreams, parse_upstream

if TYPE_CHECKING:
    from esockd_core._carried import Carried
    from esockd_core._connection import StreamConnection
    from esockd_core._relay import Forwarding


@dataclass(frozen=True, init=False)
class ForwardHandler:
    """Forwards each connection to an upstream, both ways, until both sides have finished.

    The end of one side becomes the end of the other's input, and the other direction goes on. A side that does not read
    pauses the other: no more than `write_buffer_bytes` of the listener and one read wait in memory for it. The
    listener's `send_timeout`, `linger_timeout` and `write_buffer_bytes` hold for upstreams as for clients, and its
    `idle_timeout` ends both.

    A client ends as `upstream_failed` when no upstream takes it, as `upstream_reset` or `upstream_send_timeout` when
    its upstream was lost in the midst, and as `half_closed_timeout`. Whose stream is cut short, by such an end or by a
    cancellation, sees a reset and no end of file.

    Args:
        upstreams: Where to forward to: one address or several, as `parse_address` reads them. They are tried in order;
            one that fails stands behind the others for a second.
        connect_timeout: Seconds for everything up to an upstream's readiness: finding its name, connecting to each of
            its addresses, the TLS handshake.
        half_closed_timeout: Seconds without a byte after one side has finished; None is for ever.
        send_proxy: The version of the PROXY protocol header that tells the upstream who the client is; None for none.
        tls: How to speak TLS to upstreams that are `tls://`; None is by `UpstreamTlsOptions()`.

    Raises:
        InvalidOption: A value is out of bounds, or does not apply.
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
        _check_seconds("connect_timeout", connect_timeout)
        if half_closed_timeout is not None:
            _check_seconds("half_closed_timeout", half_closed_timeout)
        if send_proxy is not None and send_proxy not in PROXY_VERSIONS:
            raise InvalidOption(f'send_proxy is {send_proxy!r}; it is "v1", "v2" or None.')
        addresses = tuple(parse_upstream(each) for each in _several(upstreams))
        if not addresses:
            raise InvalidOption("there is no upstream: give one address, or several.")
        if any(address.is_encrypted for address in addresses):
            tls = tls or UpstreamTlsOptions()
        elif tls is not None:
            raise InvalidOption(f"tls does nothing for {addresses[0]}: write {addresses[0].encrypted()}")
        values = {
            "upstreams": addresses,
            "connect_timeout": connect_timeout,
            "half_closed_timeout": half_closed_timeout,
            "send_proxy": send_proxy,
            "tls": tls,
            "_upstreams": Upstreams([Upstream(address, tls) for address in addresses], connect_timeout),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # it is frozen

    async def __call__(self, connection: StreamConnection) -> None:
        """Serve one connection."""
        client = cast("Carried", connection)
        forwarding = client.forwarding()
        upstream = await self._connect(client, forwarding)
        if upstream is None:
            client.close_nowait(UPSTREAM_FAILED)
        else:
            await forwarding.relay(upstream, self.half_closed_timeout).run()

    async def _connect(self, client: Carried, forwarding: Forwarding) -> Carried | None:
        """Connect with the first upstream that takes the client."""
        header = b"" if self.send_proxy is None else proxy_header(client, self.send_proxy)
        say = client.service.log.say
        for upstream in self._upstreams.in_order():
            try:
                connected = await self._connect_to(upstream, client, header, forwarding)
            except (OSError, UpstreamRefused) as error:
                upstream.failed()
                why = self._explain(error)
                say(logging.WARNING, "upstream %s failed: %s", upstream.address, why, connection=client)
            else:
                if upstream.is_failing:
                    upstream.is_failing = False
                    say(logging.INFO, "upstream %s works again", upstream.address)
                return connected
        return None

    async def _connect_to(self, upstream: Upstream, client: Carried, header: bytes, forwarding: Forwarding) -> Carried:
        """Try every address of an upstream; the time that is left is shared among those that are."""
        deadline = time.monotonic() + self.connect_timeout
        places = upstream.places
        if places is None:
            with anyio.fail_after(self.connect_timeout):
                places = await upstream.find_places()
        failure: Exception = OSError("its name has no address")
        for position, place in enumerate(places):
            share_s = max(0.0, deadline - time.monotonic()) / (len(places) - position)
            if name_of(place[1]) == client.sockname:
                failure = UpstreamRefused("it is this listener itself")  # a typing error would go round for ever
                continue
            try:
                return await forwarding.connect(place, upstream, header, share_s)
            except (OSError, UpstreamRefused) as error:
                failure = error
        raise failure

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


def _several(upstreams: object) -> Iterable[object]:
    """Several upstreams, where a pair of host and port is one."""
    if isinstance(upstreams, str | bytes | int | Address | Path | socket.socket):
        return (upstreams,)
    if isinstance(upstreams, tuple) and len(upstreams) == 2 and isinstance(upstreams[1], int):
        return (upstreams,)
    if isinstance(upstreams, Iterable):
        return upstreams
    return (upstreams,)


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value <= 0:
        raise InvalidOption(f"{name} is {value!r}; it takes seconds, more than 0.")
