"""Telling the service manager how this process is, by the protocol of sd_notify(3).

Nothing here fails: a service that the manager does not hear goes on serving.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE_S: Final = 1.0  # for a manager whose queue is full; only messages that it must not miss wait


class Notifier:
    """Speaks to the service manager that started this process, if there is one.

    Args:
        environ: Has NOTIFY_SOCKET if a manager wants to hear, and WATCHDOG_USEC if it waits for signs of life.

    Attributes:
        watchdog_s: The manager ends this process after that many seconds without `ping`; None if it never does.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _read_address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _read_watchdog(environ) if self._address else None

    @property
    def is_heard(self) -> bool:
        """Whether there is a manager that wants to hear."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Say that all listeners accept, also after `reloading`.

        Args:
            status: One line for people.
        """
        self._send("READY=1", _status(status))

    def tell(self, status: str) -> None:
        """Say how things are, in one line for people."""
        self._send(_status(status), may_wait=False)

    def ping(self) -> None:
        """Give the sign of life that the watchdog waits for."""
        self._send("WATCHDOG=1", may_wait=False)

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends that."""
        # What makes Type=notify-reload tell this reload from one before (systemd 253).
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, status: str) -> None:
        """Say that this process is about to end.

        Args:
            status: One line for people.
        """
        self._send("STOPPING=1", _status(status))

    def hand_over(self, pid: int) -> None:
        """Say that another process is the main one of this service from now on.

        Args:
            pid: That process.
        """
        self._send(f"MAINPID={pid}")

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        """Have the manager keep descriptors, and pass them to the process that it starts after this one.

        Args:
            name: What LISTEN_FDNAMES will call them: up to 255 printable ASCII characters, and no colon.
            descriptors: Up to 253 of them. They stay open here too.
        """
        self._send("FDSTORE=1", "FDPOLL=0", f"FDNAME={name}", descriptors=descriptors)

    def forget(self, name: str) -> None:
        """Have the manager close the descriptors that it keeps under a name."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *assignments: str, descriptors: Sequence[int] = (), may_wait: bool = True) -> None:
        if not self._address:
            return
        message = "\n".join(assignments).encode(errors="replace")
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE_S if may_wait else 0)
            sock.connect(self._address)  # each time: a manager that was started again has another socket
            socket.send_fds(sock, [message], list(descriptors))


def _read_address(text: str) -> str:
    """Where to send to; empty for nowhere. "@name" is in the abstract namespace of Linux."""
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else ""


def _read_watchdog(environ: Mapping[str, str]) -> float | None:
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdecimal()) or int(usec) == 0:
        return None
    return int(usec) / 1e6 if pid in {"", str(os.getpid())} else None


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"
