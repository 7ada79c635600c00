"""What was asked for on the command line, checked and shared among load processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from esockd_cli._errors import CommandError, ExitCode, UsageError
from esockd_cli.bench.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cli.bench.plan import Mode
    from esockd_cli.bench.target import Target

MOST_BY_DEFAULT: Final = 8
# The most bytes of a message: what UDP over IPv4 carries (RFC 768), and a record of DTLS (RFC 6347).
LARGEST: Final = {"udp": 65_507, "dtls": 16_384}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of `esockd bench`, with times in seconds and the rate a second."""

    target: str
    mode: Mode
    connections: int
    rate: float | None
    duration: float
    requests: int | None
    size: int
    timeout: float
    processes: int | None
    histogram: str | None
    may_be_remote: bool

    def check(self, transport: str) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: It does not.
            CommandError: What it needs is not installed.
        """
        if self.size == 0 and self.mode == "echo":
            raise UsageError("--size 0: a message has at least one byte.", hint="With --mode connect, 0 sends none.")
        if self.size > LARGEST.get(transport, self.size):
            raise UsageError(f"--size {self.size}: a message of {transport} has at most {LARGEST[transport]} bytes.")
        if self.size == 0 and transport == "udp":
            raise UsageError("--size 0: without a message, nothing is sent over UDP.")
        if self.requests is not None and self.mode == "idle":
            raise UsageError("--requests is for messages, and --mode idle sends none.")
        if self.mode == "idle" and transport == "udp":
            raise UsageError("--mode idle: UDP has no connections to hold.")
        if transport == "dtls" and find_spec("OpenSSL") is None:
            raise CommandError(
                "dtls:// needs pyOpenSSL, which is not installed.",
                code="not_installed",
                status=ExitCode.CANNOT_START,
                hint="Install it: pip install 'esockd-cli[dtls]'",
            )

    def plans(self, target: Target, host: str) -> list[Plan]:
        """The part of each process."""
        return [*self._plans(target, host)]

    def _plans(self, target: Target, host: str) -> Iterator[Plan]:
        count = min(self.connections, self.requests or self.connections, self.processes or default_processes())
        for number in range(count):
            connections = share(self.connections, number, count)
            yield Plan(
                transport=target.transport,
                host=host,
                port=target.port,
                server_name=target.server_name,
                mode=self.mode,
                connections=connections,
                size=self.size,
                rate=None if self.rate is None else self.rate / count,
                requests=None if self.requests is None else share(self.requests, number, count),
                duration=self.duration,
                timeout=self.timeout,
                first=number << 48,
            )


def share(total: int, number: int, count: int) -> int:
    """The part of one of several, none of which has more than one above the others."""
    return total // count + (number < total % count)


def default_processes() -> int:
    """Two or more, which leave a processor to the server where there are enough."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(MOST_BY_DEFAULT, usable - 1))
