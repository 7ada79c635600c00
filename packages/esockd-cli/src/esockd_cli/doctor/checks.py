"""All checks, in the order in which they are made and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esockd_cli.doctor import kernel, limits, listeners, python
from esockd_cli.doctor.collector import look_at_collector
from esockd_cli.doctor.findings import Check, Finding, NotSeen
from esockd_cli.doctor.machine import CannotSee
from esockd_cli.doctor.user import look_at_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esockd_cli.doctor.patient import Patient

CHECKS: Final = (
    Check(
        "python", "This Python is not a tested one, or the environment sets a slow debug mode.", python.look_at_python
    ),
    Check("event-loop", "uvloop is missing, or an instance runs on plain asyncio.", python.look_at_event_loop),
    Check("root", "An instance serves as root.", look_at_user),
    Check("clock", "Reading the clock takes a system call.", kernel.look_at_clock),
    Check(
        "backlog-overflows",
        "Queues of new connections have overflowed since the machine started.",
        kernel.look_at_backlog_overflows,
    ),
    Check("udp-drops", "Receive buffers of UDP have overflowed since the machine started.", kernel.look_at_udp_drops),
    Check(
        "conntrack",
        "The firewall's table of connections is 80 % full; an error from 95 % on.",
        kernel.look_at_conntrack,
    ),
    Check(
        "tcp-memory",
        "TCP sockets use 80 % of the memory from which on the kernel saves it; an error from there on.",
        kernel.look_at_tcp_memory,
    ),
    Check(
        "open-files",
        "The listeners of a process may take more descriptors than its open-file limit leaves.",
        limits.look_at_open_files,
    ),
    Check(
        "memory",
        "With full buffers, `max_connections` connections take more than the cgroup or the machine has; an error if "
        "idle ones do.",
        limits.look_at_memory,
    ),
    Check("backlog", "The kernel makes the backlog of a listener shorter.", limits.look_at_backlog),
    Check("buffers", "The kernel makes a buffer that a listener asks for smaller.", limits.look_at_buffers),
    Check(
        "ports",
        "A forwarder may need more ports than the kernel has for clients, or a listener's own port is one of them.",
        limits.look_at_ports,
    ),
    Check("collector", "An instance spends much time in Python's garbage collector.", look_at_collector),
    Check(
        "certificates",
        "A certificate expires within 30 days; an error if it has expired, or is not valid yet.",
        listeners.look_at_certificates,
    ),
    Check("tls-version", "A listener speaks TLS 1.0 or 1.1.", listeners.look_at_tls_versions),
    Check("rules", "An access rule can never decide; an error if rules only allow.", listeners.look_at_rules),
    Check(
        "proxy-trust",
        "A listener that other machines reach believes everybody's PROXY header; always an error.",
        listeners.look_at_proxy_trust,
    ),
    Check("keepalive", "Nothing ends the connection of a client that vanished.", listeners.look_at_keepalive),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one check has to say.

    Attributes:
        check: Its name.
        what: A finding, or why it could not look.
    """

    check: str
    what: Finding | NotSeen


def examine(patient: Patient, checks: Sequence[Check] = CHECKS) -> Iterator[Seen]:
    """Make every check."""
    for check in checks:
        try:
            for what in check.look(patient):
                yield Seen(check.name, what)
        except CannotSee as reason:
            yield Seen(check.name, NotSeen(kernel.MACHINE, str(reason)))
