"""What lies between admission and handler: the PROXY header, the judgement of its source, the TLS handshake.

Each has one deadline, and each runs in its connection alone: whoever stalls in it keeps nobody else waiting. This
module knows no event loop; `_transports` has an upgrade for each.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from esockd_core._carried import Carried
from esockd_core._connection import HANDSHAKE_TIMEOUT, NORMAL, TLS_FAILED, printable
from esockd_core._errors import InvalidOption
from esockd_core._peer_certificate import describe_upstream_tls
from esockd_proxyproto import Decoder, InvalidHeader, InvalidTlv, NotProxyHeader, Policy, UnixEndpoint

if TYPE_CHECKING:
    import ssl

    from esockd_core._address import Address
    from esockd_core._histogram import Histogram
    from esockd_core._options import ListenerOptions, PeerName
    from esockd_core._peer_certificate import TlsInfo
    from esockd_core._service import Service
    from esockd_core._tls import TlsEngine
    from esockd_proxyproto import Endpoint, ProxyHeader

PROXY_CLOSED: Final = "proxy_closed"  # without a byte: a port check
PROXY_INVALID: Final = "proxy_invalid"
PROXY_TIMEOUT: Final = "proxy_timeout"
SOURCE_FORBIDDEN: Final = "source_forbidden"
SOURCE_MAX_LIMIT: Final = "source_max_limit"
SOURCE_RATE_LIMITED: Final = "source_rate_limited"
TLS_CLOSED: Final = "tls_closed"  # without a byte: a port check

QUIET: Final = frozenset({PROXY_CLOSED, TLS_CLOSED})
SOURCE_REFUSED: Final = frozenset({SOURCE_FORBIDDEN, SOURCE_MAX_LIMIT, SOURCE_RATE_LIMITED})


class UpgradeRefused(Exception):  # noqa: N818 (it is a verdict)
    """An upgrade ends its connection.

    Attributes:
        reason: The shutdown reason to count.
        why: The story for the log.
    """

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(reason, why)
        self.reason = reason
        self.why = why


class Upgrades:
    """The upgrades of one listener.

    Attributes:
        policy: What to do about the PROXY header, None for nothing.
        context: What connections to come speak TLS with, None for none.
    """

    __slots__ = ("context", "policy")

    def __init__(self, policy: Policy | None, context: ssl.SSLContext | None) -> None:
        self.policy = policy
        self.context = context


NO_UPGRADES: Final = Upgrades(None, None)


def plan_upgrades(address: Address, options: ListenerOptions) -> Upgrades | None:
    """What connections to an address go through before their handler; None for nothing.

    Raises:
        InvalidOption: TLS is wanted by the address or by the options, but not by both.
    """
    if options.tls is None and address.is_encrypted:
        raise InvalidOption(f"{address} needs the option tls: TlsOptions(certfile=..., keyfile=...)")
    if options.tls is not None and not address.is_encrypted:
        raise InvalidOption(f"the option tls does nothing for {address}: write {address.encrypted()}")
    policy = options.proxy_policy()
    if policy is None and options.tls is None:
        return None
    return Upgrades(policy, None if options.tls is None else options.tls.context)


class InUpgrade:
    """The connections that wait for a header or a handshake, the oldest first, and since when.

    Looking at the oldest a few times a second does what a timer for each of them would.

    Args:
        durations: Where the duration of each successful handshake is noted.
    """

    __slots__ = ("_durations", "handshakes", "headers")

    def __init__(self, durations: Histogram) -> None:
        self._durations = durations
        self.headers: dict[Upgraded, float] = {}
        self.handshakes: dict[Carried, float] = {}

    def __len__(self) -> int:
        return len(self.headers) + len(self.handshakes)

    def handshake_done(self, connection: Carried, now: float) -> None:
        """A handshake succeeded."""
        since = self.handshakes.pop(connection, None)
        if since is not None:
            self._durations.note(now - since)

    def sweep(self, now: float, options: ListenerOptions) -> None:
        """End the upgrades whose time is over."""
        while self.headers:
            waiting, since = next(iter(self.headers.items()))
            if now - since < options.proxy_protocol_timeout:
                break
            del self.headers[waiting]
            waiting.header_timed_out()
        while self.handshakes:
            shaking, since = next(iter(self.handshakes.items()))
            if now - since < options.handshake_timeout:
                break
            del self.handshakes[shaking]
            shaking.handshake_timed_out()


class HeaderPhase:
    """Reads one PROXY header, or finds that there is none.

    Attributes:
        header: The header whose addresses count; None when there is none, or the policy ignores it.
        unread: Bytes that came and are not the header's.
    """

    __slots__ = ("_decoder", "_policy", "header", "unread")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._decoder = Decoder()
        self.header: ProxyHeader | None = None
        self.unread = b""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; say whether the phase is over.

        Raises:
            UpgradeRefused: They are no header where one is required, or one where none is allowed.
        """
        try:
            header = self._decoder.feed(data)
        except NotProxyHeader as error:
            if self._policy is Policy.REQUIRE:
                raise UpgradeRefused(PROXY_INVALID, str(error)) from error
            self.unread = self._decoder.received
            return True
        except InvalidHeader as error:
            raise UpgradeRefused(PROXY_INVALID, str(error)) from error
        if header is None:
            return False
        if self._policy is Policy.REJECT:
            raise UpgradeRefused(PROXY_INVALID, "this listener does not take PROXY headers")
        if self._policy is not Policy.IGNORE:
            self.header = header
        self.unread = self._decoder.trailing
        return True

    def end(self, *, timed_out: bool = False) -> None:
        """No more bytes will come, or not in time: there is no header.

        Raises:
            UpgradeRefused: One is required, or has begun.
        """
        received = self._decoder.received
        if self._policy is not Policy.REQUIRE and not self._decoder.has_signature and (received or timed_out):
            self.unread = received
        elif timed_out:
            raise UpgradeRefused(PROXY_TIMEOUT, f"no whole PROXY header in time; {len(received)} bytes of it came")
        elif received:
            raise UpgradeRefused(PROXY_INVALID, f"the peer closed after {len(received)} bytes of a PROXY header")
        else:
            raise UpgradeRefused(PROXY_CLOSED, "the peer closed without a byte")


def closed_in_handshake(engine: TlsEngine, how: str) -> UpgradeRefused:
    """The verdict on a peer that went away in a TLS handshake."""
    if engine.received_bytes:
        return UpgradeRefused(TLS_FAILED, f"the peer {how} in the middle of the handshake")
    return UpgradeRefused(TLS_CLOSED, f"the peer {how} without a byte")


class Upgraded(Carried):
    """A connection that is upgraded before its handler sees it. Its ends before that are told to no handler."""

    __slots__ = ()

    UPGRADE_SLOTS = ("_header", "_is_ready", "_phase", "_source", "_upstream_tls")

    _service: Service
    _reason: str | None
    _is_ready: bool
    _phase: HeaderPhase | None
    _header: ProxyHeader | None
    _source: PeerName | None
    _upstream_tls: TlsInfo | None

    def _init_upgrade(self) -> None:
        self._is_ready = False
        self._phase = self._header = self._source = self._upstream_tls = None

    @property
    def awaits_source(self) -> bool:
        """Whether a PROXY header is still to name its client."""
        return self._phase is not None

    @property
    def is_upgrading(self) -> bool:
        """Whether no handler has seen it yet."""
        return self.id != 0 and not self._is_ready

    def _upgrades(self) -> Upgrades:
        return self._service.upgrades or NO_UPGRADES  # headers may have been switched off meanwhile

    @abstractmethod
    def _header_over(self, phase: HeaderPhase) -> None:
        """The header is read, or none will come: go on.

        Raises:
            UpgradeRefused: What follows ends the connection.
        """

    def header_timed_out(self) -> None:
        """The time for the header is over."""
        phase = self._phase
        if phase is None or self._closing:
            return
        try:
            phase.end(timed_out=True)
            self._header_over(phase)
        except UpgradeRefused as refused:
            self._turn_away(refused)

    def handshake_timed_out(self) -> None:
        if self.is_upgrading:
            self._turn_away(UpgradeRefused(HANDSHAKE_TIMEOUT, "no whole TLS handshake in time"))
        else:
            super().handshake_timed_out()

    def _judge_source(self) -> None:
        """Take the header's word for who the client is, and judge that client.

        Raises:
            UpgradeRefused: The rules or the limits for one source are against it, or the header is malformed.
        """
        if self._phase is None:
            return  # the peer was judged at accept, and there is nobody else
        self._header = header = self._phase.header
        self._phase = None
        if header is not None and header.source is not None:
            self._source = name_of_endpoint(header.source)
        self._service.admission.admit_source(self)
        if header is not None:
            try:
                self._upstream_tls = describe_upstream_tls(header)
            except InvalidTlv as error:
                raise UpgradeRefused(PROXY_INVALID, str(error)) from error

    def _become_ready(self) -> None:
        self._is_ready = True
        super()._start()
        if self.draining:  # asked while nobody was there to be told
            self.draining = False
            self.request_draining()

    # Ends before it is ready go past the callbacks, which have not heard of it.

    def _turn_away(self, refused: UpgradeRefused) -> None:
        self._note(refused)
        if self._lost:
            return
        self._take_off_layers()
        if refused.reason in SOURCE_REFUSED:
            self._refuse(self._service.options.refuse_with)
        elif refused.reason == TLS_FAILED:
            Carried.close_nowait(self, refused.reason)  # in order, so that the alert that says why is not lost
        else:
            self.abort_socket()

    def _take_off_layers(self) -> None:
        """Make it the bare connection again that was accepted."""

    def close_nowait(self, reason: str = NORMAL) -> None:
        if self.is_upgrading and not self._closing:
            self.abort(reason)
        else:
            super().close_nowait(reason)

    def cancel_handler(self, reason: str) -> None:
        if self.is_upgrading:
            self.abort(reason)
        else:
            super().cancel_handler(reason)

    def request_draining(self) -> None:
        if self.is_upgrading:
            Carried.request_draining(self)
        else:
            super().request_draining()

    def _note(self, refused: UpgradeRefused) -> None:
        self._forget_upgrade()
        if self._reason is not None:
            return  # somebody ended it before, and this is what came of it
        self._reason = refused.reason
        if refused.reason not in QUIET:
            self._service.log.say(
                logging.INFO,
                "connection %d from %s ends (%s): %s",
                self.id,
                self.peername,
                refused.reason,
                refused.why,
                connection=self,
                reason=refused.reason,
            )

    def _note_loss(self) -> None:
        """The socket was lost before the handler was called."""
        self._forget_upgrade()
        if self._reason is None and self._phase is not None:
            try:
                self._phase.end()
            except UpgradeRefused as refused:
                self._note(refused)

    def _forget_upgrade(self) -> None:
        upgrading = self._service.upgrading
        upgrading.headers.pop(self, None)
        upgrading.handshakes.pop(self, None)

    @property
    def peername(self) -> PeerName:
        """The source that the PROXY header names, otherwise the peer of the socket."""
        return self.socket_peername if self._source is None else self._source

    @property
    def proxy(self) -> ProxyHeader | None:
        """The PROXY header."""
        return self._header

    @property
    def tls(self) -> TlsInfo | None:
        """The TLS that ends here, otherwise the TLS that ended at the proxy."""
        return super().tls or self._upstream_tls


def name_of_endpoint(endpoint: Endpoint | UnixEndpoint) -> PeerName:
    """Who a PROXY header names, in the words of a socket's peer."""
    if isinstance(endpoint, UnixEndpoint):
        return printable(endpoint.path)
    host = endpoint.host
    return (host[7:] if host.startswith("::ffff:") and "." in host else host), endpoint.port
