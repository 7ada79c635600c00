"""A connection as its listener sees it: all that admission, timeouts, drain and control need of any kind of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from esockd_core._connection.face import Connection
from esockd_core._stats.reasons import KILLED

if TYPE_CHECKING:
    from collections.abc import Hashable

    from esockd_core._stats.counters import Counters


class ServedConnection(Connection):
    """One admitted connection.

    It has ended when both its handler and its socket have: only then its place is free and its end is counted.

    Attributes:
        counted_source: The source that holds a place of `max_connections_per_source`.
        moved_bytes: Bytes received plus bytes acknowledged by the peer, at the last look; -1 before the first.
        moved_at: When they were last seen to have grown, by the event loop's clock.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "counted_source",
        "draining",
        "id",
        "moved_at",
        "moved_bytes",
        "opened_at",
        "user_data",
    )

    counted_source: Hashable | None
    moved_bytes: int
    moved_at: float

    # Its bytes

    def signs_of_life(self) -> int:
        """Grows with everything that comes from the peer."""
        return self.bytes_in

    @abstractmethod
    def wire_bytes_out(self) -> int:
        """Bytes given to the socket so far or waiting in this process for it; with TLS, bytes of ciphertext."""

    @abstractmethod
    def taken_bytes(self) -> int:
        """How many of `wire_bytes_out` the peer has acknowledged, as far as the system tells."""

    @abstractmethod
    def undelivered_bytes(self) -> int:
        """Bytes handed over that the peer has not acknowledged: in this process and in the kernel."""

    @abstractmethod
    def has_unread_input(self) -> bool:
        """Whether the socket holds bytes that were not read yet."""

    def add_totals(self, counters: Counters) -> None:
        """Add what went through the connection to the counters of its listener, once, at its end."""
        counters.bytes_in += self.bytes_in
        counters.bytes_out += self.bytes_out

    # Its end

    @property
    @abstractmethod
    def error(self) -> Exception | None:
        """The error that broke the connection; None if none did."""

    @abstractmethod
    def note_reason(self, reason: str) -> None:
        """Set the reason that its end counts under, unless it has one."""

    @abstractmethod
    def reason_for(self, error: BaseException) -> str:
        """The reason that a handler's exception counts under. Only errors of its own are logged."""

    @property
    @abstractmethod
    def has_finished(self) -> bool:
        """Whether the peer finished sending."""

    @abstractmethod
    def entrance_timed_out(self) -> None:
        """Its PROXY header or its handshake has taken too long."""

    @abstractmethod
    def ended(self, reason: str) -> None:
        """Note that nothing is left of the connection. It counts under the first reason that was given."""

    @abstractmethod
    def cut_short(self, reason: str) -> None:
        """End a stream that its handler did not end: deliver what was handed over, and then reset.

        An orderly end would tell the peer that it has everything.
        """

    @abstractmethod
    def close_socket(self) -> None:
        """Close the socket at once, because its stream is over."""

    @abstractmethod
    def cancel_handler(self, reason: str) -> None:
        """Cancel the handler; may be called again and again until it has ended."""

    def kill(self) -> None:
        """Reset the connection and cancel its handler, counted as `killed`."""
        self.abort(KILLED)
        self.cancel_handler(KILLED)

    @abstractmethod
    def request_draining(self) -> None:
        """Ask the handler to end the connection, because its listener is closing."""

    @abstractmethod
    def handler_stack(self) -> str:
        """Where the handler is, as text for the log."""
