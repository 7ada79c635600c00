"""The hot path of esockd-core's streams on asyncio and uvloop, in C.

esockd-core uses it by itself where it is installed. Programs have nothing to ask of it but `in_use`.
"""

from typing import Final

from esockd_speedups._streams import bind, in_use, resuming

INTERFACE: Final = 1
"""What esockd-core has to know to use `bind`; raised with each change of that, and of what the methods do in core."""

__all__ = ["INTERFACE", "bind", "in_use", "resuming"]
