"""What a run of listeners announces: where it listens, how it closes, and what its listeners did."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cli._output import Output
    from esockd_cli._summary import Summary
    from esockd_core import Address


class Announcements:
    """Announces what happens in one run, with worker processes or without.

    Args:
        output: Where to tell.
        loop: The name of the event loop.
        workers: How many worker processes there are; None if this process serves by itself.
    """

    def __init__(self, output: Output, loop: str, workers: int | None = None) -> None:
        self._output = output
        self._loop = loop
        self._workers = workers
        self._started_at = time.monotonic()

    def listening(self, name: str, addresses: Sequence[str], port: int | None, instance: str | None) -> None:
        """Tell where a listener is bound."""
        workers = {} if self._workers is None else {"workers": self._workers}
        for address in addresses:
            self._output.data(
                f"{name} listening on {address}",
                event="listening",
                listener=name,
                address=address,
                port=port,
                loop=self._loop,
                pid=os.getpid(),
                **workers,
                instance=instance,
            )

    def note_if_loopback(self, address: Address, port: int | None) -> None:
        """Tell that a listener can be reached from this machine only, if so."""
        if address.kind == "loopback":
            to_all = replace(address, kind="everywhere", port=port)
            self._output.note(f"port {port} is open to this machine only (loopback); {to_all} opens it to all")

    def serving(self, instance: str | None) -> None:
        """Tell that all listeners are open."""
        count = self._workers
        many = "" if count is None else f"with {count} worker{'s'[: count != 1]} "
        watching = "" if instance is None else f"; watch it: esockd top -i {instance}"
        self._output.note(f"serving {many}on {self._loop}; Ctrl-C stops{watching}")

    def stopping(self, signal: str, connections: int, timeouts_s: Sequence[float | None]) -> None:
        """Tell that the listeners close, and how long that may take.

        Args:
            signal: The signal that asked for it.
            connections: The open connections.
            timeouts_s: How long the handlers of each listener may go on.
        """
        self._output.data(None, event="stopping", signal=signal, connections=connections)
        timeout_s = longest(timeouts_s)
        patience = "as long as they take" if timeout_s is None else f"up to {timeout_s:g} s"
        many = f"{connections} connection{'s'[: connections > 1]}"
        more = f"; {patience} for {many}; again to hurry" if connections else ""
        self._output.note(f"{signal}: closing{more}")

    def summary(self, event: Literal["summary", "stopped"], signal: str, summaries: Sequence[Summary]) -> None:
        """Tell what the listeners did.

        Args:
            event: Why it is told.
            signal: The signal that asked for the end; empty if none has.
            summaries: One for each listener.
        """
        self._output.data(
            None,
            event=event,
            signal=signal or None,
            uptime=round(time.monotonic() - self._started_at, 3),
            listeners=[summary.fields() for summary in summaries],
        )
        for summary in summaries:
            self._output.note(str(summary))


def longest(timeouts_s: Sequence[float | None]) -> float | None:
    """The longest of some timeouts, of which None is the longest of all."""
    return None if None in timeouts_s else max((timeout_s or 0.0 for timeout_s in timeouts_s), default=0.0)
