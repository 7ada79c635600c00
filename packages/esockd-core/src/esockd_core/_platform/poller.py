"""One descriptor that becomes readable when any of many sockets is: epoll(7) of Linux, kqueue(2) of macOS and BSD.

An event loop waits for it in one task. Waiting for each socket would take a task for each.
"""

from __future__ import annotations

import select
from typing import Any, Protocol


class Poller(Protocol):
    """Watches sockets for reading. It is level-triggered: a socket is reported until it was read empty."""

    def fileno(self) -> int:
        """The descriptor that is readable while any watched socket is."""
        ...

    def register(self, descriptor: int, /) -> None:
        """Watch a socket.

        Raises:
            OSError: If memory is short (ENOMEM, ENOSPC), or if it is not an open socket.
        """

    def unregister(self, descriptor: int, /) -> None:
        """Stop watching a socket. Call it before the socket is closed, because another may get its number soon.

        Raises:
            OSError: If it is not watched.
        """

    def ready(self, at_most: int) -> list[int]:
        """The sockets that have bytes, an end of the stream or an error to read now."""
        ...

    def close(self) -> None:
        """Close the descriptor; watched sockets stay open."""


def open_poller() -> Poller | None:
    """Open a poller of the kind that this system has; None if it has none, and each socket takes a task.

    Raises:
        OSError: If there are no descriptors left.
    """
    if hasattr(select, "epoll"):
        return _EpollPoller()
    if hasattr(select, "kqueue"):
        return _KqueuePoller(select)
    return None


class _EpollPoller:
    def __init__(self) -> None:
        self._epoll = epoll = select.epoll()
        self.fileno = epoll.fileno
        self.unregister = epoll.unregister
        self.close = epoll.close

    def register(self, descriptor: int) -> None:
        self._epoll.register(descriptor, select.EPOLLIN)

    def ready(self, at_most: int) -> list[int]:
        return [descriptor for descriptor, _ in self._epoll.poll(0, at_most)]


class _KqueuePoller:
    def __init__(self, system: Any) -> None:  # `select`, of which type checkers know on Linux what Linux has
        self._kqueue = kqueue = system.kqueue()
        self._system = system
        self.fileno = kqueue.fileno
        self.close = kqueue.close

    def register(self, descriptor: int) -> None:
        self._change(descriptor, self._system.KQ_EV_ADD)

    def unregister(self, descriptor: int) -> None:
        self._change(descriptor, self._system.KQ_EV_DELETE)

    def ready(self, at_most: int) -> list[int]:
        return [event.ident for event in self._kqueue.control(None, at_most, 0)]

    def _change(self, descriptor: int, flags: int) -> None:
        change = self._system.kevent(descriptor, self._system.KQ_FILTER_READ, flags)
        self._kqueue.control([change], 0, 0)
