"""The version of the command."""

from __future__ import annotations

import sys


def print_version() -> None:
    """Write the installed version to stdout."""
    from importlib.metadata import version  # noqa: PLC0415 - costs more than the rest of --help

    sys.stdout.write(f"esockd {version('esockd-cli')}\n")
