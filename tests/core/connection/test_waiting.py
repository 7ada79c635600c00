"""Who waits in an entrance has one deadline, whatever it sends."""

from __future__ import annotations

from esockd_core import ListenerOptions
from esockd_core._connection.entrance import Waiting
from esockd_core._stats.histogram import Histogram


class Trickling:
    """A client that nobody reads from, or that sends again before each look."""

    def __init__(self) -> None:
        self.timed_out = 0

    def entrance_timed_out(self) -> None:
        self.timed_out += 1

    def has_unread_input(self) -> bool:
        return True


def test_unread_input_delays_the_end_of_a_handshake_to_the_next_look_and_no_further() -> None:
    waiting, client = Waiting(Histogram()), Trickling()
    options = ListenerOptions(handshake_timeout=5)
    waiting.handshakes[client] = 0.0
    waiting.sweep(4.9, options)
    waiting.sweep(5.0, options)
    assert client.timed_out == 0
    waiting.sweep(5.1, options)
    waiting.sweep(5.2, options)
    assert client.timed_out == 1
    assert len(waiting) == 0
