"""PROXY header and TLS handshake on trio, in a task of the connection that ends before its handler starts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import wait_readable

from esockd_core._connection.entrance import EntranceRefused
from esockd_core._connection.entrance_driver import EntranceDriver
from esockd_core._loops.trio.stream import TrioStream
from esockd_core._stats.reasons import HANDLER_ERROR
from esockd_core._tls.engine import TlsEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.entrance import HeaderPhase

HEADER_READ_BYTES: Final = 4_096  # most headers have less than 600 (PP 2.2)


class TrioEntranceDriver(EntranceDriver[TrioStream]):
    """One task, one step after the other."""

    __slots__ = ("_waiting_scope",)

    def __init__(self, handler_driver: Callable[[], AnyDriver]) -> None:
        super().__init__(handler_driver)
        self._waiting_scope = trio.CancelScope()

    def start(self, connection: TrioStream) -> None:
        # It waits from now, not from the first turn of the task: the next client is judged before that.
        phase = self._begin(connection)
        if phase is None:
            connection.site.waiting.handshakes[connection] = connection.now()
        connection._side.nursery.start_soon(self._run, connection, phase)

    async def _run(self, connection: TrioStream, phase: HeaderPhase | None) -> None:
        unread = b""
        waiting = connection.site.waiting
        try:
            if phase is not None:
                await self._read_header(connection, phase)
                self._judge(connection, phase)
                unread = phase.unread
            context = self._context(connection)
            if context is not None:
                waiting.handshakes.setdefault(connection, connection.now())
                await connection.shake_hands(TlsEngine(context), unread)
                waiting.handshake_done(connection, connection.now())
                unread = b""
        except EntranceRefused as refused:
            self.turn_away(connection, refused)
        except trio.ClosedResourceError:
            pass  # somebody ended it
        except OSError as error:
            connection.fail(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends its own connection only
            connection.site.log.say(logging.ERROR, "the entrance of a connection failed: %r", error, error=error)
            connection.abort(HANDLER_ERROR)
        else:
            if connection.state == "open":
                connection._may_be_readable = True
                self._pass(connection, unread)

    async def _read_header(self, connection: TrioStream, phase: HeaderPhase) -> None:
        raw = connection._socket
        with self._waiting_scope:
            while True:
                await wait_readable(raw)
                try:
                    data = raw.recv(HEADER_READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    phase.end()
                    return
                if phase.feed(data):
                    return

    def _header_over(self, connection: TrioStream, phase: HeaderPhase) -> None:  # noqa: ARG002
        self._waiting_scope.cancel()  # and the task goes on

    def _take_off_tls(self, connection: TrioStream) -> None:
        pass  # it is put on at the end of the handshake
