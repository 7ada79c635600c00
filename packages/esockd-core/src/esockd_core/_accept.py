"""Taking sockets from the kernel's accept queue: the errno policy, and the loop that follows it.

accept(2) fails for four kinds of reasons, and each has one answer (see `AcceptAnswer`). An acceptor never ends because
of an error it can wait out, never spins on one it cannot, and never dies in silence.
"""

from __future__ import annotations

import errno
import logging
import socket
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_core._service import Service

logger = logging.getLogger("esockd_core")

BATCH: Final = 64  # sockets taken in one wake-up, so that a full queue cannot starve open connections
BACKOFF_FIRST_S: Final = 0.1  # Ranch, trio and Thousand Island all chose 100 ms
BACKOFF_LAST_S: Final = 1.0
LOG_EVERY_S: Final = 10.0

RETRY_ERRNOS: Final = frozenset(
    # accept(2): errors already pending on the new socket are to be treated like EAGAIN; EPERM is a firewall's verdict.
    {
        errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT,
        errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT,
    }
)  # fmt: skip
OVERLOAD_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class AcceptAnswer(Enum):
    """What to do about an error of accept(2)."""

    WAIT = "the queue is empty: wait for the next client"
    RETRY = "this client is gone: take the next; after a whole batch of such, wait as below"
    BACK_OFF = "the system lacks descriptors or memory: wait and try again"
    FAIL = "this listening socket will not work again"


def answer_to(error: OSError) -> AcceptAnswer:
    """The one table of errors of accept(2)."""
    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
        return AcceptAnswer.WAIT
    if error.errno in OVERLOAD_ERRNOS:
        return AcceptAnswer.BACK_OFF
    if error.errno in RETRY_ERRNOS:
        return AcceptAnswer.RETRY
    return AcceptAnswer.FAIL


class AskedSocket(socket.socket):
    """A listening socket whose class says how it accepts and duplicates: no event loop may accept past it."""


class Backoff:
    """The pause after failed calls of accept(2): 100 ms, doubling to 1 s, back to the start after a success."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._next_s = BACKOFF_FIRST_S
        self._logged_at = float("-inf")

    def reset(self) -> None:
        """A socket was accepted."""
        self._next_s = BACKOFF_FIRST_S

    def fail(self, error: OSError) -> None:
        """Count a failed call and say so, at most once in ten seconds."""
        self._service.counters.closed_sys_limit += 1
        if anyio.current_time() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = anyio.current_time()
            logger.warning(
                "listener %s: accept failed: %s; trying again in %.1f s and so on until it works. "
                "Clients wait in the kernel's queue meanwhile",
                self._service.name,
                error,
                self._next_s,
            )

    async def wait(self) -> None:
        """Pause, longer after each failure."""
        delay_s = self._next_s
        self._next_s = min(self._next_s * 2, BACKOFF_LAST_S)
        await anyio.sleep(delay_s)


def take(accept: Callable[[], tuple[socket.socket, Any]]) -> tuple[socket.socket, Any]:
    """Take the next client that is still there; errors that concern only one client are passed over.

    Raises:
        OSError: The queue is empty, or the error is not about one client: nor is one that comes a whole batch long.
    """
    for attempt in range(1, BATCH + 1):
        try:
            accepted, address = accept()
        except OSError as error:
            if answer_to(error) is not AcceptAnswer.RETRY or attempt == BATCH:
                raise
        else:
            accepted.setblocking(False)
            return accepted, address
    raise AssertionError("unreachable")


class AcceptLoop:
    """Accepts on one listening socket and hands each client to `serve`, until it is cancelled or the socket fails.

    This loop is exact: it asks for a client only when it may have one, so it can leave clients in the kernel's queue
    while the listener is full or out of tokens, and it sees every error.
    """

    def __init__(
        self, service: Service, listening: socket.socket, serve: Callable[[socket.socket], Awaitable[None] | None]
    ) -> None:
        self._service = service
        self._listening = listening
        self._serve = serve
        self._backoff = Backoff(service)

    async def run(self) -> None:
        """Accept for ever.

        Raises:
            OSError: The listening socket will not work again.
        """
        while True:
            await anyio.wait_readable(self._listening)
            await self.drain_queue(BATCH)
            await checkpoint()

    async def drain_queue(self, at_most: int, *, may_wait: bool = True) -> None:
        """Take and serve the clients that are queued now.

        Args:
            at_most: How many.
            may_wait: Whether clients may be left in the queue until there is room or a token for them.

        Raises:
            OSError: The listening socket will not work again.
        """
        for _ in range(at_most):
            if not may_wait or not self._service.leaves_in_backlog:
                error = await self._serve_one()
            else:
                # One after the other over all acceptors, so that none takes the place another just saw free.
                async with self._service.turn:
                    await self._service.wait_for_turn()
                    error = await self._serve_one()
            if error is None:
                self._backoff.reset()
                continue
            answer = answer_to(error)
            if answer is AcceptAnswer.FAIL:
                raise error
            if answer is not AcceptAnswer.WAIT:
                self._backoff.fail(error)
                await self._backoff.wait()
            return

    async def _serve_one(self) -> OSError | None:
        try:
            accepted, _ = take(self._listening.accept)
        except OSError as error:
            return error
        served = self._serve(accepted)
        if served is not None:
            await served
        return None
