"""Taking sockets from the kernel's accept queue: the errno policy, and the loop that follows it.

accept(2) fails for four kinds of reasons, and each has one answer (see `AcceptAnswer`). An acceptor never ends because
of an error that passes, never spins on one that does not, and never dies silently.
"""

from __future__ import annotations

import errno
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from esockd_core._platform.errnos import errnos

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from esockd_core._admission.gate import Gate
    from esockd_core._connection.site import Site

logger = logging.getLogger("esockd_core")

BATCH: Final = 64  # sockets taken in one wake-up, so that a full queue cannot starve open connections
BACKOFF_FIRST_S: Final = 0.1  # Ranch, trio and Thousand Island all chose 100 ms
BACKOFF_LAST_S: Final = 1.0
LAST_TRIES: Final = 3  # with a pause after each, for the clients of a socket that is about to be closed
LOG_EVERY_S: Final = 10.0

# accept(2): errors already pending on the new socket are to be treated like EAGAIN; EPERM is a firewall's verdict.
RETRY_ERRNOS: Final = errnos(
    "ECONNABORTED", "EINTR", "EPROTO", "EPERM", "ENETDOWN", "ENOPROTOOPT",
    "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ETIMEDOUT",
)  # fmt: skip
OVERLOAD_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class AcceptAnswer(Enum):
    """What to do about an error of accept(2)."""

    WAIT = "the queue is empty: wait for the next client"
    RETRY = "this client is gone: take the next; after a whole batch of such, wait as below"
    BACK_OFF = "the system lacks descriptors or memory: wait and try again"
    FAIL = "this listening socket will not work again"


def answer_to(error: OSError) -> AcceptAnswer:
    """Look up the answer to an error of accept(2)."""
    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
        return AcceptAnswer.WAIT
    if error.errno in OVERLOAD_ERRNOS:
        return AcceptAnswer.BACK_OFF
    if error.errno in RETRY_ERRNOS:
        return AcceptAnswer.RETRY
    return AcceptAnswer.FAIL


class Backoff:
    """The pause after failed calls of accept(2): 100 ms, doubling to 1 s, back to the start after a success."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._next_s = BACKOFF_FIRST_S
        self._logged_at = float("-inf")

    def reset(self) -> None:
        """Start again from the shortest pause, because a socket was accepted."""
        self._next_s = BACKOFF_FIRST_S

    def fail(self, error: OSError) -> None:
        """Count a failed call and log it, at most once in ten seconds."""
        self._site.counters.closed_sys_limit += 1
        if anyio.current_time() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = anyio.current_time()
            logger.warning(
                "listener %s: accept failed: %s; trying again in %.1f s and so on until it works. "
                "Clients wait in the kernel's queue meanwhile",
                self._site.name,
                error,
                self._next_s,
            )

    async def wait(self) -> None:
        """Pause, longer after each failure."""
        delay_s = self._next_s
        self._next_s = min(self._next_s * 2, BACKOFF_LAST_S)
        await anyio.sleep(delay_s)


def take(accept: Callable[[], tuple[socket.socket, Any]]) -> tuple[socket.socket, Any]:
    """Take the next client that is still there; errors that concern one client only are skipped.

    Raises:
        OSError: If the queue is empty, or if the error is not about one client only. One that lasts for a whole batch
            is not.
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

    This loop is exact: it takes a client only when it may have one, so clients stay in the kernel's queue while the
    listener is full or out of tokens. It also sees every error.
    """

    def __init__(
        self,
        site: Site,
        gate: Gate,
        listening: socket.socket,
        serve: Callable[[socket.socket], Awaitable[None] | None],
    ) -> None:
        self._gate = gate
        self._listening = listening
        self._serve = serve
        self._backoff = Backoff(site)

    async def run(self) -> None:
        """Accept for ever.

        Raises:
            OSError: If the listening socket will not work again.
        """
        while True:
            await anyio.wait_readable(self._listening)
            await self._serve_batch()
            await checkpoint()

    async def _serve_batch(self) -> None:
        for _ in range(BATCH):
            if not self._gate.leaves_in_backlog:
                error = await self._serve_one()
            else:
                # One after the other over all acceptors, so that none takes the place another just saw free.
                async with self._gate.turn:
                    await self._gate.wait_for_turn()
                    try:
                        error = await self._serve_one()
                    finally:
                        self._gate.admission.unreserve()
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


async def take_queued(site: Site, listening: socket.socket, at_most: int) -> list[socket.socket]:
    """Take clients from the queue of a socket that is no longer accepted on, at most one batch.

    Other tasks get their turn first, and a cancellation arrives then, so no client that was taken is lost.

    Args:
        site: Counts the failures.
        listening: The socket, which is about to be closed.
        at_most: The most clients to take.

    Returns:
        The accepted sockets; none once the queue is empty.

    Raises:
        OSError: If the listening socket will not work again, or the system lacks descriptors or memory after all tries.
    """
    await checkpoint()
    await checkpoint_if_cancelled()
    backoff = Backoff(site)
    taken: list[socket.socket] = []
    for tries_left in reversed(range(LAST_TRIES)):
        try:
            while len(taken) < min(at_most, BATCH):
                taken.append(take(listening.accept)[0])
        except OSError as error:
            answer = answer_to(error)
            if taken or answer is AcceptAnswer.WAIT:
                return taken
            if answer is AcceptAnswer.FAIL or not tries_left:
                raise
            backoff.fail(error)
            await backoff.wait()
        else:
            return taken
    raise AssertionError("unreachable")
