"""A connection and its driver: what streams and datagrams have in common, on every event loop and in memory."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from anyio import BrokenResourceError, ClosedResourceError
from anyio.lowlevel import checkpoint

from esockd_core._connection.draining import DrainingWatch, UntilDraining
from esockd_core._connection.served import ServedConnection
from esockd_core._errors import InvalidOption
from esockd_core._options.table import OPTIONS
from esockd_core._stats.reasons import NORMAL, RESET

if TYPE_CHECKING:
    from collections.abc import Hashable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.entrance import ProxiedClient
    from esockd_core._connection.face import State
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import PeerName
    from esockd_proxyproto import ProxyHeader


class DrivenConnection(ServedConnection):
    """One connection and the driver that it tells of everything.

    Args:
        site: The parts of the listener that its connections share.
        driver: The first driver.

    Attributes:
        driver: Told of everything that happens to the connection.
        client: The client of the proxy in front; None without a PROXY header.
    """

    __slots__ = (
        "_closing",
        "_draining_watch",
        "_error",
        "_lost",
        "_reason",
        "_receiver",
        "_site",
        "_unyielded",
        "client",
        "driver",
    )

    def __init__(self, site: Site, driver: AnyDriver) -> None:
        self._site = site
        self.driver = driver
        self.client: ProxiedClient | None = None
        self._draining_watch: DrainingWatch | None = None
        self._error: Exception | None = None
        self._reason: str | None = None
        self._receiver: Any = None  # what the receiving task waits for
        self._closing = False
        self._lost = False
        self._unyielded = 0
        self.id = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.counted_source: Hashable | None = None
        self.moved_bytes = -1  # the first look starts its idle time
        self.moved_at = 0.0
        self.draining = False
        self.user_data = None

    @abstractmethod
    def _wake_receiver(self) -> None:
        """Let the receiving task look again."""

    @abstractmethod
    def _may_be_cancelled(self) -> bool:
        """Whether the current task has to check for cancellation when it does not block."""

    @abstractmethod
    async def _checkpoint(self) -> None:
        """Notice cancellation, and let other tasks run now and then."""

    @abstractmethod
    def now(self) -> float:
        """The event loop's clock."""

    # Its end

    @property
    def state(self) -> State:
        return "closed" if self._lost else "closing" if self._closing else "open"

    def _closed_error(self) -> Exception:
        if self._error is not None:
            error = BrokenResourceError(str(self._error))
            error.__cause__ = self._error
            return error
        return ClosedResourceError()

    def note_reason(self, reason: str) -> None:
        self._reason = self._reason or reason

    @abstractmethod
    def _handler_ended(self, reason: str, cancelled: bool = False) -> None:
        """The handler is done: end the connection, in order unless the handler was cancelled."""

    @abstractmethod
    def close_nowait(self, reason: str = NORMAL) -> None: ...

    async def aclose(self) -> None:
        if self._error is not None:  # from here on it is closed, however it came to that
            self.note_reason(RESET)
            self._error = None
        self.close_nowait()
        await checkpoint()

    def entrance_timed_out(self) -> None:
        self.driver.timed_out(self)

    def kill(self) -> None:
        self._site.watch.killed.add(self)
        super().kill()

    def cancel_handler(self, reason: str) -> None:
        self.driver.cancel(self, reason)

    # Draining

    @abstractmethod
    def _taken_by_handler(self) -> int:
        """Grows with everything that the handler takes of what has come."""

    @abstractmethod
    def _has_untaken(self) -> bool:
        """Whether something has come that the handler has not begun to take."""

    def _waits_for_drain(self) -> bool:
        """Whether a drain is the end of what its receiving task waits for."""
        watch = self._draining_watch
        return watch is not None and bool(watch.scopes)

    def request_draining(self) -> None:
        if self.draining:
            return
        self.draining = True
        watch = self._draining_watch
        if watch is not None:
            watch.event.set()
        if self._receiver is not None:
            if self._waits_for_drain():
                self._wake_receiver()  # which then looks for itself: it may have been woken by input already
        elif watch is not None and not self._has_untaken():
            taken = self._taken_by_handler()
            for each in watch.scopes:
                if each.taken == taken:
                    each.scope.cancel()
        self.driver.drain_requested(self)

    async def wait_draining(self) -> None:
        await self._watch_draining().event.wait()

    def until_draining(self) -> UntilDraining:
        if not self.driver.receives:
            raise RuntimeError("until_draining() is for coroutine handlers; callbacks are told by drain_requested()")
        return UntilDraining(self)

    def enter_until_draining(self, scope: UntilDraining) -> None:
        """See `UntilDraining`."""
        self._watch_draining().scopes.append(scope)
        scope.taken = self._taken_by_handler()
        if self.draining and not self._has_untaken():
            scope.scope.cancel()

    def leave_until_draining(self, scope: UntilDraining) -> None:
        """See `UntilDraining`."""
        scopes = self._watch_draining().scopes
        if scope in scopes:
            scopes.remove(scope)

    async def _end_for_drain(self) -> bool:
        watch = self._draining_watch
        if watch is None or not watch.cancel_scopes():
            return False
        await checkpoint()
        return True

    def _watch_draining(self) -> DrainingWatch:
        if self._draining_watch is None:
            self._draining_watch = DrainingWatch()
            if self.draining:
                self._draining_watch.event.set()
        return self._draining_watch

    # Looking at it

    @property
    def receive_timeout(self) -> float | None:
        return self._site.watch.receive_timeouts.get(self, self._site.options.receive_timeout)

    @receive_timeout.setter
    def receive_timeout(self, timeout: float | None) -> None:
        OPTIONS["receive_timeout"].kind.check("receive_timeout", timeout)
        if not self._lost:
            self._site.watch.set_receive_timeout(self, timeout, self.now())

    @property
    def error(self) -> Exception | None:
        return self._error

    @property
    def site(self) -> Site:
        """The parts of the listener that its connections share."""
        return self._site

    @property
    def end_reason(self) -> str | None:
        """The reason that its end will count under; None if none was given yet."""
        return self._reason

    @property
    def peername(self) -> PeerName:
        client = self.client
        return self.socket_peername if client is None or client.source is None else client.source

    @property
    def proxy(self) -> ProxyHeader | None:
        return None if self.client is None else self.client.header

    def handler_stack(self) -> str:
        return self.driver.stack(self)


def check_reason(reason: object) -> None:
    """Check a reason that a program gave.

    Raises:
        InvalidOption: If it is not text.
    """
    if not isinstance(reason, str):
        raise InvalidOption("it takes text", option="reason", value=reason)


def consists_of(error: BaseException, kinds: tuple[type[Exception], ...]) -> bool:
    """Whether an error, or each error of a group, is of one of these kinds."""
    if isinstance(error, BaseExceptionGroup):
        return all(consists_of(each, kinds) for each in error.exceptions)
    return isinstance(error, kinds)
