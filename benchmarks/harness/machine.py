"""Facts about the machine, without which no figure means anything, and how its CPUs are shared out."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class CpuShares:
    """Who may run where.

    Attributes:
        server: CPUs of the server that is measured.
        client: CPUs of the load client.
    """

    server: frozenset[int]
    client: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether server and client never compete for a CPU."""
        return not self.server & self.client


def share_cpus(servers: int) -> CpuShares:
    """Give the server the first `servers` CPUs this process may use, and the client the last one."""
    usable = sorted(os.sched_getaffinity(0))
    return CpuShares(server=frozenset(usable[:servers]), client=frozenset(usable[-1:]))


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and all it starts; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def facts(shares: CpuShares, packages: tuple[str, ...]) -> dict[str, str]:
    """What to print beside the figures, by name."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    apart = "apart" if shares.apart else "SHARING A CPU: there are too few"
    pinned = f"{len(shares.server)} and {len(shares.client)} CPUs, {apart}"
    return {
        "CPU": f"{cpu_model()}, {len(os.sched_getaffinity(0))} usable, load average {os.getloadavg()[0]:.2f} before",
        "servers and client": pinned,
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
