"""The standard descriptors, which a careless parent may have closed."""

from __future__ import annotations

import os


def hold_standard_descriptors() -> None:
    """Open /dev/null as each of the descriptors 0 to 2 that is closed, before anything else is opened.

    Otherwise they would become sockets: what a library writes to stderr would reach a client, and libuv ends the
    process with SIGABRT for closing one of them.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free (open(2))
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
