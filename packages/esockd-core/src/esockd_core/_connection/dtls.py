"""DTLS of a datagram listener: who is let in, the handshake, and the records of open sessions.

This module needs the extra `dtls`. It knows no event loop.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from anyio import BrokenResourceError

from esockd_core._connection.driver import NOBODY, Driver
from esockd_core._dtls.doorkeeper import DtlsDoorkeeper
from esockd_core._dtls.facts import describe_dtls
from esockd_core._dtls.hello import is_hello, read_hello
from esockd_core._dtls.session import MAX_MESSAGE_BYTES, DtlsSession
from esockd_core._errors import BadValueError, DatagramTooLong
from esockd_core._stats.counters import Dropped
from esockd_core._stats.reasons import HANDSHAKE_TIMEOUT, NORMAL, TLS_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.site import Site
    from esockd_core._options.dtls import DtlsOptions
    from esockd_core._tls.facts import TlsInfo

SOONEST_S: Final = 0.05  # until the next look at a handshake; OpenSSL's clock and the event loop's differ a little


class DtlsEntrance:
    """The way of new peers into one listener.

    Args:
        site: The parts of the listener.
        options: Its DTLS options.

    Attributes:
        context: What new sessions share.
        doorkeeper: Answers datagrams of peers that have proven nothing.
    """

    __slots__ = ("_driver", "_handler_driver", "_next", "_retransmissions", "_site", "context", "doorkeeper")

    _handler_driver: Callable[[], AnyDriver]

    def __init__(self, site: Site, options: DtlsOptions) -> None:
        self._site = site
        self.context = options.context
        self.doorkeeper = DtlsDoorkeeper()
        self._driver = DtlsEntranceDriver(self)
        # When to look at which handshake again. One heap replaces a timer for each of them.
        self._retransmissions: list[tuple[float, int, DatagramBase, DtlsLayer]] = []
        self._next = count()

    def use(self, options: DtlsOptions) -> None:
        """Use these options for new sessions."""
        self.context = options.context

    def enter(self, connection: DatagramBase, handler_driver: Callable[[], AnyDriver]) -> None:
        """Begin the handshake of a peer that was admitted, whose hello is the next that it receives."""
        self._handler_driver = handler_driver
        self._site.registry.enter(connection)
        self._site.waiting.handshakes[connection] = connection.now()
        connection.layer = DtlsLayer(self)
        connection.driver = self._driver

    def passed(self, connection: DatagramBase) -> None:
        """Make a connection public and start its handler, because its handshake is done."""
        site = self._site
        site.waiting.handshake_done(connection, connection.now())
        connection.driver = NOBODY
        site.registry.passed(connection)
        if connection.state != "open":  # by the hook that was told of its start
            return
        connection.driver = driver = self._handler_driver()
        driver.start(connection)
        if connection.draining:  # asked while nobody was there to be told
            driver.drain_requested(connection)

    def turn_away(self, connection: DatagramBase, reason: str, why: str) -> None:
        """End a connection whose handshake failed."""
        self._site.waiting.forget(connection)
        if connection.end_reason is None:
            self._site.log.say(
                logging.INFO,
                "connection %d from %s ends (%s): %s",
                connection.id,
                connection.peername,
                reason,
                why,
                connection=connection,
                reason=reason,
            )
        connection.abort(reason)

    # Retransmission

    def watch(self, connection: DatagramBase, layer: DtlsLayer, timeout: float | None, now: float) -> None:
        """Look at a handshake again after this many seconds."""
        if timeout is not None:
            due = now + max(timeout, SOONEST_S)
            heappush(self._retransmissions, (due, next(self._next), connection, layer))

    def sweep(self, now: float) -> None:
        """Send again what peers have not answered in time."""
        heap = self._retransmissions
        while heap and heap[0][0] <= now:
            _, _, connection, layer = heappop(heap)
            if layer.info is None and connection.state == "open":
                layer.retransmit(connection)
                self.watch(connection, layer, layer.timeout(), now)


class DtlsEntranceDriver(Driver["DatagramBase"]):
    """The driver of connections in their handshake. There is one for all: what each needs is in its layer."""

    __slots__ = ("_entrance",)

    def __init__(self, entrance: DtlsEntrance) -> None:
        self._entrance = entrance

    def timed_out(self, connection: DatagramBase) -> None:
        self._entrance.turn_away(connection, HANDSHAKE_TIMEOUT, "no whole DTLS handshake in time")

    def lost(self, connection: DatagramBase, broke: bool) -> None:  # noqa: ARG002
        connection.site.waiting.forget(connection)
        connection.ended(NORMAL)


class DtlsLayer:
    """The session of one connection.

    Attributes:
        info: The facts about it; None before the end of the handshake.
    """

    __slots__ = ("_baked_at", "_entrance", "_session", "info")

    def __init__(self, entrance: DtlsEntrance) -> None:
        self._entrance = entrance
        self._session: DtlsSession | None = None
        self._baked_at = 0
        self.info: TlsInfo | None = None

    def received(self, connection: DatagramBase, datagram: bytes) -> None:
        """The peer sent a datagram."""
        session = self._session
        if is_hello(datagram) or session is None:
            self._take_hello(connection, datagram)
            return
        messages = session.feed(datagram)
        counters = connection.site.counters
        if messages:
            counters.datagrams_in += len(messages) - 1  # a datagram may hold several
        else:
            counters.count_dropped(Dropped.DTLS)
            self._transmit(connection, session.take())
        if self.info is None and not self._is_open(connection, session):
            return
        for number, message in enumerate(messages):
            if connection.state != "open":
                counters.count_dropped(Dropped.UNREAD, len(messages) - number)
                return
            connection.deliver(message)
        if session.peer_finished:
            self._transmit(connection, session.finish())
            connection.peer_finished()
        elif session.error is not None:
            connection.fail(ConnectionResetError(f"DTLS: {session.why_failed()}"))

    def _is_open(self, connection: DatagramBase, session: DtlsSession) -> bool:
        """Whether the handshake is done, with what follows from it."""
        if session.handshaken:
            self._transmit(connection, session.take())
            self.info = describe_dtls(session)
            self._entrance.passed(connection)
            return True
        if session.error is not None:
            if (error := session.notes.program_error) is not None:
                connection.site.log.say(
                    logging.ERROR, "the function of the option dtls.psk failed: %r", error, error=error
                )
            self._entrance.turn_away(connection, TLS_FAILED, session.why_failed())
        return False

    def _take_hello(self, connection: DatagramBase, datagram: bytes) -> None:
        """Begin the session, or begin anew if the peer does and proves that it is the peer."""
        doorkeeper, site = self._entrance.doorkeeper, connection.site
        hello = read_hello(datagram)
        baked_at = None if hello is None else doorkeeper.baked_at(hello, connection.peername)
        if hello is None or baked_at is None:
            if answer := doorkeeper.answer(datagram, connection.peername):
                site.counters.datagrams_answered += 1
                self._transmit(connection, [answer])
            else:
                site.counters.count_dropped(Dropped.DTLS)
        elif self._session is None:
            self._baked_at = baked_at
            site.counters.count_dropped(Dropped.DTLS)
            self._session = session = DtlsSession(self._entrance.context, hello)
            self._transmit(connection, session.take())
            if not self._is_open(connection, session):
                self._entrance.watch(connection, self, session.timeout(), connection.now())
        elif baked_at <= self._baked_at or not site.takes_new_peers:
            site.counters.count_dropped(Dropped.DTLS)  # the same hello once more, or an older one that somebody kept
        else:
            connection.port.start_anew(connection, datagram)

    def _transmit(self, connection: DatagramBase, datagrams: Iterable[bytes]) -> None:
        for datagram in datagrams:
            with suppress(DatagramTooLong):  # and so lost on its way, like any other
                connection.transmit(datagram)

    def retransmit(self, connection: DatagramBase) -> None:
        """Send again what the peer has not answered."""
        if self._session is not None:
            self._transmit(connection, self._session.handle_timeout())
            self._is_open(connection, self._session)

    def timeout(self) -> float | None:
        """The seconds until `retransmit` is due; None for never."""
        return None if self._session is None else self._session.timeout()

    def seal(self, connection: DatagramBase, data: bytes) -> bytes:
        """The record for a datagram that the handler sends. How much is added to it depends on the cipher only.

        Raises:
            DatagramTooLong: If it does not fit into a record.
            BadValueError: If it is empty.
            anyio.BrokenResourceError: If the session has failed.
        """
        if len(data) > MAX_MESSAGE_BYTES:
            reason = f"it has {len(data)} bytes, and DTLS carries {MAX_MESSAGE_BYTES} (RFC 5246 section 6.2.1)"
            raise DatagramTooLong(reason, option="datagram")
        session = self._session
        if not data:
            raise BadValueError("OpenSSL has no record of DTLS without data", option="datagram", value=data)
        record = b"" if session is None else session.write(data)
        if not record:
            why = "" if session is None else session.why_failed()
            connection.fail(ConnectionResetError(f"DTLS: {why}"))
            raise BrokenResourceError(f"DTLS: {why}")
        return record

    def close(self, connection: DatagramBase) -> None:
        """Tell the peer that this side closes in order (RFC 5246 section 7.2.1)."""
        if self._session is not None:
            self._transmit(connection, self._session.finish())
