"""Where a new socket on trio goes: the one place that decides its next driver."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from esockd_core._connection.driver import Driver
from esockd_core._connection.handler import CallbackHandler
from esockd_core._loops.trio.callbacks import TrioCallbackDriver
from esockd_core._loops.trio.coroutine import CoroutineDriver
from esockd_core._loops.trio.entrance import TrioEntranceDriver
from esockd_core._loops.trio.stream import TrioStream

if TYPE_CHECKING:
    import socket

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.site import Site
    from esockd_core._loops.trio.side import TrioSide


class Arrival(Driver[TrioStream]):
    """The driver of a socket that was just accepted. It judges the peer, and hands it on or turns it away."""

    __slots__ = ("_driver", "_handler", "_side", "_site")

    def __init__(self, site: Site, side: TrioSide) -> None:
        self._site = site
        self._side = side
        self._handler: Handler | None = None
        self._driver: AnyDriver = self

    def new_connection(self, accepted: socket.socket) -> None:
        """Judge the peer of a new socket; serve it or turn it away."""
        self.start(TrioStream(self._site, self, self._side, accepted))

    def handler_driver(self) -> AnyDriver:
        """The driver of the handler that serves new connections now."""
        handler = self._site.handler
        if handler is not self._handler:
            self._handler = handler
            if isinstance(handler, CallbackHandler):
                self._driver = TrioCallbackDriver(handler, self._side)
            else:
                self._driver = CoroutineDriver(handler, self._side)
        return self._driver

    def start(self, connection: TrioStream) -> None:
        site = self._site
        if not site.judge.admits(connection, connection.socket_peername):
            connection.refuse(site.options.refuse_with)
            return
        if site.sets_socket_options:
            with suppress(OSError):  # the peer may be gone already
                site.options.tcp.apply_to_connection(connection._socket)
        if site.entrance is None:
            site.registry.add(connection)
            if not connection._closing:  # by the hook that was told of its start
                # Without a call, for each connection.
                driver = self._driver if site.handler is self._handler else self.handler_driver()
                connection.driver = driver
                driver.start(connection)
        else:
            site.registry.enter(connection)
            connection.driver = entrance = TrioEntranceDriver(self.handler_driver)
            entrance.start(connection)
