"""The esockd command: run and inspect hardened socket listeners."""

from esockd_cli._main import main

__all__ = ["main"]
