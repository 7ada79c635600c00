"""For tests of what is built on esockd-core: connections in memory, hostile clients, faults of accept(2), a fake clock.

Nothing here is imported unless a test does so, and nothing here needs a test framework. `docs/testing.md` of the
repository shows each in use.
"""

from esockd_core.testing._clients import (
    ListenerAddress,
    connect_and_reset,
    connect_deaf,
    exchange,
    reset,
    send_byte_by_byte,
    silent_clients,
)
from esockd_core.testing._connection import MemoryConnection
from esockd_core.testing._flaky import AcceptFaults, FlakySocket
from esockd_core.testing._memory import memory_connection
from esockd_core.testing._peer import MemoryPeer
from esockd_ratelimit.testing import FakeClock

__all__ = [
    "AcceptFaults",
    "FakeClock",
    "FlakySocket",
    "ListenerAddress",
    "MemoryConnection",
    "MemoryPeer",
    "connect_and_reset",
    "connect_deaf",
    "exchange",
    "memory_connection",
    "reset",
    "send_byte_by_byte",
    "silent_clients",
]
