"""The hot path of esockd-core's streams on asyncio and uvloop, in C.

esockd-core uses it by itself where it is installed. Programs have nothing to ask of it but `in_use`.
"""

from typing import Final

from esockd_speedups._streams import bind, in_use, resuming

INTERFACE: Final = 1
"""The number of what core and this package agree on: the arguments of `bind`, and what the methods do.

Core uses no other number than the one that it knows.
"""

__all__ = ["INTERFACE", "bind", "in_use", "resuming"]
