"""kqueue(2) as Python's `select` shows it, made of epoll(7), so that code for macOS and BSD runs on Linux as well.

Only what the package uses: watching sockets for reading, level-triggered.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

KQ_FILTER_READ = -1
KQ_EV_ADD = 0x1
KQ_EV_DELETE = 0x2
KQ_EV_EOF = 0x8000

epoll, EPOLLIN, EPOLLRDHUP = select.epoll, select.EPOLLIN, select.EPOLLRDHUP  # as they are before anybody hides them


class kevent(NamedTuple):  # noqa: N801 (the name in `select`)
    ident: int
    filter: int = KQ_FILTER_READ
    flags: int = KQ_EV_ADD


class kqueue:  # noqa: N801 (as above)
    def __init__(self) -> None:
        self._epoll = epoll()
        self.fileno = self._epoll.fileno
        self.close = self._epoll.close

    def control(
        self, changelist: Iterable[kevent] | None, max_events: int, timeout: float | None = None, /
    ) -> list[kevent]:
        for change in changelist or ():
            assert change.filter == KQ_FILTER_READ
            if change.flags == KQ_EV_ADD:
                self._epoll.register(change.ident, EPOLLIN)
            else:
                assert change.flags == KQ_EV_DELETE
                self._epoll.unregister(change.ident)
        if not max_events:  # kevent(2) returns at once then, whatever the timeout
            return []
        found = self._epoll.poll(timeout, max_events)
        return [kevent(ident, KQ_FILTER_READ, KQ_EV_EOF if events & EPOLLRDHUP else 0) for ident, events in found]
