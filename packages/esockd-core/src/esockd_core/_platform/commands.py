"""Commands of this system that show more: hints for people, never run by the package."""

from __future__ import annotations

import sys
from typing import Final

IS_LINUX: Final = sys.platform == "linux"

SHOW_ADDRESSES: Final = "ip address" if IS_LINUX else "ifconfig"
"""Lists the addresses of this machine."""


def show_port_holder(port: int, *, datagram: bool) -> str:
    """The command that names the processes at a port."""
    if IS_LINUX:
        return f"ss -l{'u' if datagram else 't'}np 'sport = :{port}'"
    if "bsd" in sys.platform and not sys.platform.startswith("openbsd"):
        return f"sockstat -l -p {port}"
    return f"lsof -nP -i{'UDP' if datagram else 'TCP'}:{port}"


def show_path_holder(path: str, *, listening: bool = True) -> str:
    """The command that names the processes at the path of a Unix socket, or at a name without a file ("@name")."""
    if IS_LINUX:
        return f"ss -{'l' if listening else 'a'}xp src {path}"
    return f"lsof {path}"
