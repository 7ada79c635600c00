"""The driver that leads a connection through its entrance: what is the same on every event loop."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, TypeVar

from esockd_core._connection.driver import NOBODY, Driver
from esockd_core._connection.entrance import Entrance, EntranceRefused, HeaderPhase, ProxiedClient
from esockd_core._connection.names import name_of_endpoint
from esockd_core._connection.stream import StreamBase
from esockd_core._stats.reasons import (
    HANDSHAKE_TIMEOUT,
    NORMAL,
    PORT_CHECKS,
    PROXY_INVALID,
    SOURCE_REFUSALS,
    TLS_FAILED,
)
from esockd_core._tls.facts import describe_tls_at_proxy
from esockd_proxyproto import InvalidTlv

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from esockd_core._connection.driver import AnyDriver

S = TypeVar("S", bound=StreamBase)

SWITCHED_OFF: Final = Entrance(None, None)


class EntranceDriver(Driver[S]):
    """Leads one connection through header, judgement and handshake, and then hands it to its handler's driver.

    Args:
        handler_driver: Returns the driver of the handler that serves new connections at that moment.
    """

    __slots__ = ("_handler_driver", "_phase")

    def __init__(self, handler_driver: Callable[[], AnyDriver]) -> None:
        self._handler_driver = handler_driver
        self._phase: HeaderPhase | None = None

    def _begin(self, connection: S) -> HeaderPhase | None:
        """Begin with the header and return its phase; None if no header is looked for."""
        site = connection.site
        policy = (site.entrance or SWITCHED_OFF).policy
        if policy is None:
            return None
        self._phase = HeaderPhase(policy)
        site.waiting.headers[connection] = connection.now()
        return self._phase

    def _context(self, connection: S) -> ssl.SSLContext | None:
        """The TLS context in force now; None without TLS."""
        return (connection.site.entrance or SWITCHED_OFF).context

    def _judge(self, connection: S, phase: HeaderPhase) -> None:
        """Take over the client that the header names, and judge it.

        Raises:
            EntranceRefused: If the rules or the limits per source refuse it, or if the header is malformed.
        """
        self._phase = None
        site = connection.site
        site.waiting.headers.pop(connection, None)
        header = phase.header
        source = None if header is None or header.source is None else name_of_endpoint(header.source)
        if header is not None:
            connection.client = ProxiedClient(header, source, None)
        site.judge.admit_source(connection)
        if header is not None:
            try:
                tls = describe_tls_at_proxy(header)
            except InvalidTlv as error:
                raise EntranceRefused(PROXY_INVALID, str(error)) from None
            if tls is not None:
                connection.client = ProxiedClient(header, source, tls)

    def _pass(self, connection: S, unread: bytes = b"") -> None:
        """Make the connection public and start its handler, because it has passed its entrance."""
        site = connection.site
        site.waiting.forget(connection)
        connection.driver = NOBODY
        site.registry.passed(connection)
        if connection.state != "open":  # by the hook that was told of its start
            return
        if unread:
            connection.put_back(unread)
        connection.driver = driver = self._handler_driver()
        driver.start(connection)
        if connection.draining:  # asked while nobody was there to be told
            driver.drain_requested(connection)
        if unread:
            connection.deliver_buffered()

    # Ends

    def turn_away(self, connection: S, refused: EntranceRefused) -> None:
        """End the connection."""
        self._note(connection, refused)
        self._phase = None
        if connection.state == "closed":
            return
        self._take_off_tls(connection)
        if refused.reason in SOURCE_REFUSALS:
            connection.refuse(connection.site.options.refuse_with)
        elif refused.reason == TLS_FAILED:
            connection.close_nowait(TLS_FAILED)  # in order, so that the alert that says why is not lost
        else:
            connection.close_socket()

    @abstractmethod
    def _take_off_tls(self, connection: S) -> None:
        """Remove the TLS layer, so that bytes go to the socket as they are."""

    def _note(self, connection: S, refused: EntranceRefused) -> None:
        site = connection.site
        site.waiting.forget(connection)
        if connection.end_reason is not None:
            return  # somebody ended it before, and this is what came of it
        connection.note_reason(refused.reason)
        if refused.reason not in PORT_CHECKS:
            site.log.say(
                logging.INFO,
                "connection %d from %s ends (%s): %s",
                connection.id,
                connection.peername,
                refused.reason,
                refused.why,
                connection=connection,
                reason=refused.reason,
            )

    def timed_out(self, connection: S) -> None:
        phase = self._phase
        if phase is None:
            self.turn_away(connection, EntranceRefused(HANDSHAKE_TIMEOUT, "no whole TLS handshake in time"))
            return
        try:
            phase.end(timed_out=True)
            self._header_over(connection, phase)
        except EntranceRefused as refused:
            self.turn_away(connection, refused)

    @abstractmethod
    def _header_over(self, connection: S, phase: HeaderPhase) -> None:
        """Continue after the header, or without one.

        Raises:
            EntranceRefused: If the connection has to end.
        """

    def lost(self, connection: S, broke: bool) -> None:  # noqa: ARG002
        phase, self._phase = self._phase, None
        connection.site.waiting.forget(connection)
        if phase is not None and connection.end_reason is None:
            try:
                phase.end()
            except EntranceRefused as refused:
                self._note(connection, refused)
        connection.ended(NORMAL)
