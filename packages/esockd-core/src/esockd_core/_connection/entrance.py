"""The entrance between admission and handler: PROXY header, judgement of its source, TLS handshake.

Header and handshake have one deadline each, and each runs in its own connection: a client that stalls there delays no
other. This module knows no event loop; `_loops` has an entrance driver for each.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, Protocol

from esockd_core._errors import InvalidOption
from esockd_core._options.proxy import HEADER_TIMEOUT_S
from esockd_core._stats.reasons import PROXY_CLOSED, PROXY_INVALID, PROXY_TIMEOUT, TLS_CLOSED, TLS_FAILED
from esockd_proxyproto import Decoder, InvalidHeader, NotProxyHeader, Policy

if TYPE_CHECKING:
    import ssl

    from esockd_core._address import Address
    from esockd_core._options.listener import ListenerOptions, PeerName
    from esockd_core._stats.histogram import Histogram
    from esockd_core._tls.engine import TlsEngine
    from esockd_core._tls.facts import TlsInfo
    from esockd_proxyproto import ProxyHeader


class EntranceRefused(Exception):  # noqa: N818 (it is a verdict)
    """The entrance ends its connection.

    Attributes:
        reason: The shutdown reason to count.
        why: The explanation for the log.
    """

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(reason, why)
        self.reason = reason
        self.why = why


class ProxiedClient(NamedTuple):
    """The client of the proxy in front.

    Attributes:
        header: The PROXY header that names it.
        source: The client's address; None if the header names none.
        tls: The TLS that ended at the proxy; None if the header mentions none.
    """

    header: ProxyHeader
    source: PeerName | None
    tls: TlsInfo | None


class Entrance:
    """What connections of one listener pass before their handler.

    Attributes:
        policy: How to treat the PROXY header; None to look for none.
        context: The TLS context of new connections; None without TLS.
    """

    __slots__ = ("context", "policy")

    def __init__(self, policy: Policy | None, context: ssl.SSLContext | None) -> None:
        self.policy = policy
        self.context = context


def plan_entrance(address: Address, options: ListenerOptions) -> Entrance | None:
    """The entrance of connections to an address; None for none.

    Raises:
        InvalidOption: If only one of address and options asks for TLS or DTLS.
    """
    for name, given in (("tls", options.tls), ("dtls", options.dtls)):
        if given is None and address.transport == name:
            hint = f"Write {name.capitalize()}Options(certfile=..., keyfile=...)."
            raise InvalidOption(f"{address} needs the option {name}", option=name, hint=hint)
        if given is not None and address.transport != name:
            encrypted = address.encrypted()
            hint = f"Write {encrypted}." if encrypted.transport == name else f"Give the option {encrypted.transport}."
            raise InvalidOption(f"it does nothing for {address}", option=name, hint=hint)
    proxy = options.proxy
    if proxy is None and options.tls is None:
        return None
    return Entrance(
        None if proxy is None else Policy(proxy.policy), None if options.tls is None else options.tls.context
    )


class Waits(Protocol):
    """A connection that waits for a header or a handshake."""

    def entrance_timed_out(self) -> None:
        """It has waited too long."""

    def has_unread_input(self) -> bool:
        """Whether the socket holds bytes that were not read yet."""
        ...


class Waiting:
    """The connections that wait for a header or a handshake, oldest first, with the time since when.

    A look at the oldest a few times a second replaces a timer for each of them.

    Args:
        durations: Notes the duration of each successful handshake.
    """

    __slots__ = ("_durations", "_spared", "handshakes", "headers")

    def __init__(self, durations: Histogram) -> None:
        self._durations = durations
        self.headers: dict[Waits, float] = {}
        self.handshakes: dict[Waits, float] = {}
        self._spared: set[Waits] = set()  # once, because something was there to be read

    def __len__(self) -> int:
        return len(self.headers) + len(self.handshakes)

    def handshake_done(self, connection: Waits, now: float) -> None:
        """A handshake succeeded."""
        self._spared.discard(connection)
        since = self.handshakes.pop(connection, None)
        if since is not None:
            self._durations.note(now - since)

    def forget(self, connection: Waits) -> None:
        """Stop waiting for a connection."""
        self.headers.pop(connection, None)
        self.handshakes.pop(connection, None)
        self._spared.discard(connection)

    def sweep(self, now: float, options: ListenerOptions) -> None:
        """Time out the connections that have waited too long."""
        # Headers may have been switched off while these were waited for.
        header_timeout_s = HEADER_TIMEOUT_S if options.proxy is None else options.proxy.header_timeout
        self._time_out(self.headers, now - header_timeout_s)
        self._time_out(self.handshakes, now - options.handshake_timeout)

    def _time_out(self, waiting: dict[Waits, float], begun_before: float) -> None:
        for connection, _ in list(takewhile(lambda each: each[1] <= begun_before, waiting.items())):
            # What came in time counts, though the program was too busy to read it; it is read before the next look.
            if connection.has_unread_input() and connection not in self._spared:
                self._spared.add(connection)
            elif waiting.pop(connection, None) is not None:
                self._spared.discard(connection)
                connection.entrance_timed_out()


class HeaderPhase:
    """Reads one PROXY header, or finds that there is none.

    Attributes:
        header: The header that counts; None if none came or the policy ignores it.
        unread: Bytes that came after the header.
    """

    __slots__ = ("_decoder", "_policy", "header", "unread")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._decoder = Decoder()
        self.header: ProxyHeader | None = None
        self.unread = b""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes, and return whether the phase is over.

        Raises:
            EntranceRefused: If they are not a header and one is required, or if they are one and it is not allowed.
        """
        try:
            header = self._decoder.feed(data)
        except NotProxyHeader as error:
            error.__traceback__ = None  # the decoder keeps it, and its frames would keep the connection
            if self._policy is Policy.REQUIRE:
                raise EntranceRefused(PROXY_INVALID, str(error)) from None
            self.unread = self._decoder.received
            return True
        except InvalidHeader as error:
            error.__traceback__ = None
            raise EntranceRefused(PROXY_INVALID, str(error)) from None
        if header is None:
            return False
        if self._policy is Policy.REJECT:
            raise EntranceRefused(PROXY_INVALID, "this listener does not take PROXY headers")
        if self._policy is not Policy.IGNORE:
            self.header = header
        self.unread = self._decoder.trailing
        return True

    def end(self, *, timed_out: bool = False) -> None:
        """End the phase without a header, because no more bytes will come or its time is over.

        Raises:
            EntranceRefused: If a header is required or has begun.
        """
        received = self._decoder.received
        if self._policy is not Policy.REQUIRE and not self._decoder.has_signature and (received or timed_out):
            self.unread = received
        elif timed_out:
            raise EntranceRefused(PROXY_TIMEOUT, f"no whole PROXY header in time; {len(received)} bytes of it came")
        elif received:
            raise EntranceRefused(PROXY_INVALID, f"the peer closed after {len(received)} bytes of a PROXY header")
        else:
            raise EntranceRefused(PROXY_CLOSED, "the peer closed without a byte")


def closed_in_handshake(engine: TlsEngine, how: str) -> EntranceRefused:
    """The verdict on a peer that left during the TLS handshake."""
    if engine.has_received:
        return EntranceRefused(TLS_FAILED, f"the peer {how} in the middle of the handshake")
    return EntranceRefused(TLS_CLOSED, f"the peer {how} without a byte")
