"""Where a new socket on asyncio and uvloop goes: the one place that decides its next driver."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from esockd_core._connection.driver import Driver
from esockd_core._connection.handler import CallbackHandler
from esockd_core._connection.names import name_of
from esockd_core._loops.asyncio.callbacks import AsyncioCallbackDriver
from esockd_core._loops.asyncio.coroutine import CoroutineDriver
from esockd_core._loops.asyncio.entrance import AsyncioEntranceDriver
from esockd_core._loops.asyncio.stream import DEFAULT_WRITE_BUFFER_BYTES, AsyncioStream

if TYPE_CHECKING:
    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.site import Site
    from esockd_core._loops.asyncio.side import AsyncioSide


class Arrival(Driver[AsyncioStream]):
    """The driver of a socket that was just accepted. It judges the peer, and hands it on or turns it away."""

    __slots__ = ("_driver", "_handler", "_side", "_site")

    def __init__(self, site: Site, side: AsyncioSide) -> None:
        self._site = site
        self._side = side
        self._handler: Handler | None = None
        self._driver: AnyDriver = self

    def handler_driver(self) -> AnyDriver:
        """The driver of the handler that serves new connections now."""
        handler = self._site.handler
        if handler is not self._handler:
            self._handler = handler
            if isinstance(handler, CallbackHandler):
                self._driver = AsyncioCallbackDriver(handler, self._side.end_program, self._side.context)
            else:
                self._driver = CoroutineDriver(handler, self._side)
        return self._driver

    def start(self, connection: AsyncioStream) -> None:
        site = self._site
        peer = connection._transport.get_extra_info("peername")
        if type(peer) is not tuple or len(peer) != 2:  # asked first: over IPv4, the address is the name
            peer = name_of(peer)
        if not site.judge.admits(connection, peer):
            connection.refuse(site.options.refuse_with)
            return
        if site.sets_socket_options:
            with suppress(OSError):  # the peer may be gone already
                site.options.tcp.apply_to_connection(connection._raw_socket())
        # Without a call, where the loop's own sizes are right.
        if self._side.caps_reads or site.options.write_buffer_bytes != DEFAULT_WRITE_BUFFER_BYTES:
            connection.bound_buffers()
        if site.entrance is None:
            site.registry.add(connection)
            if not connection._closing:  # by the hook that was told of its start
                # Without a call, for each connection.
                driver = self._driver if site.handler is self._handler else self.handler_driver()
                connection.driver = driver
                driver.start(connection)
        else:
            site.registry.enter(connection)
            connection.driver = entrance = AsyncioEntranceDriver(self.handler_driver)
            entrance.start(connection)
