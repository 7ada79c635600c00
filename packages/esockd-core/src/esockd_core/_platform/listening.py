"""Whether a socket listens, as far as the system tells."""

from __future__ import annotations

import select
import socket


def is_listening(sock: socket.socket) -> bool | None:
    """Whether listen(2) was called for a socket that was not shut down since (SO_ACCEPTCONN).

    Returns:
        The answer; None if the system does not tell, as on macOS.
    """
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return None


def is_shut_down(sock: socket.socket) -> bool:
    """Whether somebody called shutdown(2) on a socket, after which it is readable for ever and nothing comes."""
    poll = select.poll()
    told = getattr(select, "POLLRDHUP", 0)
    poll.register(sock, told)
    return any(events & (told | select.POLLHUP) for _, events in poll.poll(0))  # and not POLLERR: an error that waits
