"""The version of the command."""

from __future__ import annotations

import sys
from importlib.metadata import version


def print_version() -> None:
    """Write the installed version to stdout."""
    sys.stdout.write(f"esockd {version('esockd-cli')}\n")
