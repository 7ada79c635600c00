"""A listening socket with an accept(2) that fails when a test says so."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Any

from esockd_core._sockets.asked import AskedSocket

if TYPE_CHECKING:
    from collections.abc import Mapping


class AcceptFaults:
    """The faults of accepting clients. They may be changed at any time.

    A step is a call of accept(2) that finds a client waiting, counted from 1 over all acceptors. At a fault the client
    stays in the kernel's queue, as with `EMFILE`, and waits for the next call.

    Args:
        steps: The errno of each step that fails, such as `{3: errno.EMFILE}`.

    Attributes:
        steps: The errno of each step that is still to fail.
        always: The errno of every other step; None if those work.
        calls: Steps so far.
    """

    def __init__(self, steps: Mapping[int, int] | None = None) -> None:
        self.steps: dict[int, int] = dict(steps or {})
        self.always: int | None = None
        self.calls: int = 0

    def raise_next(self) -> None:
        """Count a step, and raise its fault if it has one.

        Raises:
            OSError: The fault of this step.
        """
        self.calls += 1
        number = self.steps.pop(self.calls, self.always)
        if number is not None:
            raise OSError(number, os.strerror(number))


class FlakySocket(AskedSocket):
    """A listening socket with faults, to be given to a listener as its address.

    It is a real socket with real clients; only its accept(2) fails. Every listener calls it for each client. uvloop
    would accept in C, so a listener there accepts as it does when descriptors are scarce.

    Args:
        steps: The errno of each step that fails; see `AcceptFaults`.
        listening: The socket to take over; None opens one on a free port of 127.0.0.1.

    Attributes:
        faults: The faults, shared with the duplicates that a listener makes.
    """

    def __init__(self, steps: Mapping[int, int] | None = None, *, listening: socket.socket | None = None) -> None:
        sock = socket.create_server(("127.0.0.1", 0)) if listening is None else listening
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.faults: AcceptFaults = AcceptFaults(steps)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a client, or raise the fault of this step.

        Raises:
            OSError: The fault of this step, or one of the kernel.
        """
        poll = select.poll()  # select(2) knows descriptors below 1024 only
        poll.register(self, select.POLLIN)
        if poll.poll(0):
            self.faults.raise_next()
        return super().accept()

    def dup(self) -> FlakySocket:
        """Another descriptor of the same socket, with the same faults."""
        plain = socket.socket(self.family, self.type, self.proto, fileno=os.dup(self.fileno()))
        duplicate = FlakySocket(listening=plain)
        duplicate.settimeout(self.gettimeout())
        duplicate.faults = self.faults
        return duplicate
