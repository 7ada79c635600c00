"""Numbers of errors, some of which only one system has."""

from __future__ import annotations

import errno


def errnos(*names: str) -> frozenset[int]:
    """The numbers of those errors, by name, that this system has. ENONET, for example, is only on Linux."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))
