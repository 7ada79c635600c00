"""For tests of programs on esockd-core: connections in memory, hostile clients, faults of accept(2), a fake clock.

Nothing here is imported unless a test does so, and nothing here needs a test framework. `docs/testing.md` of the
repository shows how to use each.
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
from esockd_core.testing._datagrams import MemoryDatagramPeer, MemoryDatagrams, memory_datagrams
from esockd_core.testing._flaky import AcceptFaults, FlakySocket
from esockd_core.testing._hellos import send_false_hellos
from esockd_core.testing._impairment import Impairment
from esockd_core.testing._lossy_link import lossy_link
from esockd_core.testing._memory import memory_connection
from esockd_core.testing._peer import MemoryPeer
from esockd_ratelimit.testing import FakeClock

__all__ = [
    "AcceptFaults",
    "FakeClock",
    "FlakySocket",
    "Impairment",
    "ListenerAddress",
    "MemoryConnection",
    "MemoryDatagramPeer",
    "MemoryDatagrams",
    "MemoryPeer",
    "connect_and_reset",
    "connect_deaf",
    "exchange",
    "lossy_link",
    "memory_connection",
    "memory_datagrams",
    "reset",
    "send_byte_by_byte",
    "send_false_hellos",
    "silent_clients",
]
