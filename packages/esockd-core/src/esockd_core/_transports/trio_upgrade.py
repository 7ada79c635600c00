"""PROXY header and TLS handshake on trio: a task of the connection's own, which ends before its handler is called."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from trio.lowlevel import wait_readable

from esockd_core._connection import HANDLER_ERROR, RESET
from esockd_core._tls import TlsEngine
from esockd_core._transports.trio import TrioConnection
from esockd_core._transports.trio_callbacks import TrioCallbackConnection
from esockd_core._transports.trio_tls import Prefixed, shake_hands
from esockd_core._upgrade import HeaderPhase, Upgraded, UpgradeRefused

if TYPE_CHECKING:
    from esockd_core._service import Service
    from esockd_core._transports.trio_callbacks import CallbackPoller

logger = logging.getLogger("esockd_core")

PEEK_BYTES: Final = 4_096  # most headers have less than 600 (PP 2.2)


class _TrioUpgrade(Upgraded, TrioConnection):
    """What both styles of handlers have in common; callbacks hear of a connection once it is ready."""

    __slots__ = ()

    _waiting_scope: trio.CancelScope | None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._init_upgrade()
        self._waiting_scope = None

    def _start(self) -> None:
        # Now, not when the task has its first turn: the next client is judged before that.
        upgrading, policy = self._service.upgrading, self._upgrades().policy
        waiting = upgrading.handshakes if policy is None else upgrading.headers
        waiting[self] = trio.current_time()
        if policy is not None:
            self._phase = HeaderPhase(policy)
        self._nursery.start_soon(self._upgrade)

    async def _upgrade(self) -> None:
        if self._lost:  # before this task's first turn
            return
        try:
            unread = b"" if self._phase is None else await self._take_header(self._phase)
            self._judge_source()
            context = self._upgrades().context
            if context is not None:
                self._service.upgrading.handshakes.setdefault(self, trio.current_time())
                engine = TlsEngine(context)
                self._socket = cast("socket.socket", await shake_hands(self._socket, engine, unread))
                self._service.upgrading.handshake_done(self, trio.current_time())
            elif unread:
                self._socket = cast("socket.socket", Prefixed(self._socket, unread))
        except UpgradeRefused as refused:
            self._turn_away(refused)
        except (trio.ClosedResourceError, OSError) as error:
            self._note_loss()
            if not self._lost:
                self._error = error
                self.abort(RESET)
        except Exception:
            logger.exception("listener %s: an upgrade failed", self._service.name)
            self.abort(HANDLER_ERROR)
        else:
            self._forget_upgrade()
            if not self._closing:
                self._may_be_readable = True
                self._become_ready()

    async def _take_header(self, phase: HeaderPhase) -> bytes:
        """Read the header, and leave what follows it in the kernel; give what had to be taken out all the same."""
        with trio.CancelScope() as self._waiting_scope:
            while True:
                await wait_readable(self._socket)
                try:
                    piece = self._socket.recv(PEEK_BYTES, socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                if not piece:
                    phase.end()
                    break
                is_over = phase.feed(piece)
                left = min(len(phase.unread), len(piece)) if is_over else 0
                if left < len(piece):
                    self._socket.recv(len(piece) - left)
                if is_over:
                    self._service.upgrading.headers.pop(self, None)
                    return phase.unread[: len(phase.unread) - left]
        self._service.upgrading.headers.pop(self, None)
        return phase.unread  # no header, and the peer finished or is silent

    def _header_over(self, phase: HeaderPhase) -> None:  # noqa: ARG002 (`_take_header` goes on with it)
        if self._waiting_scope is not None:
            self._waiting_scope.cancel()

    def abort_socket(self) -> None:
        if self.is_upgrading:
            self._forget_upgrade()
            TrioConnection.abort_socket(self)
        else:
            super().abort_socket()

    def _ended(self) -> None:
        if self.is_upgrading:
            TrioConnection._ended(self)  # noqa: SLF001 (past the callbacks, as above)
        else:
            super()._ended()


class TrioUpgraded(_TrioUpgrade):
    """A connection served by a coroutine handler once its upgrades are done."""

    __slots__ = (*Upgraded.UPGRADE_SLOTS, "_waiting_scope")


class TrioCallbackUpgraded(_TrioUpgrade, TrioCallbackConnection):
    """A connection served by callbacks once its upgrades are done."""

    __slots__ = (*Upgraded.UPGRADE_SLOTS, "_waiting_scope")


def make_upgraded(
    service: Service, nursery: trio.Nursery, accepted: socket.socket, poller: CallbackPoller
) -> TrioConnection:
    """The connection of a new socket, by the style of the handler at this moment."""
    if service.callbacks is not None:
        return TrioCallbackUpgraded(service, nursery, accepted, poller, service.callbacks)
    return TrioUpgraded(service, nursery, accepted)
