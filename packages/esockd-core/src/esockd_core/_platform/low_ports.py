"""The ports that not everybody may open, and the privilege that opens them (ip(7), `ip_unprivileged_port_start`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

SETTING: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
USUAL: Final = 1024

PRIVILEGE: Final = "root or CAP_NET_BIND_SERVICE" if sys.platform == "linux" else "root"
"""What opens the lower ones."""


def first_free_port() -> int:
    """The first port that everybody may open. On Linux this is a setting, of IPv6 too; a container often has 0."""
    try:
        return int(SETTING.read_bytes())
    except (OSError, ValueError):
        return USUAL  # not Linux, or no /proc
