"""A machine of files that a test writes, and what `esockd doctor` says about it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esockd_cli.doctor.checks import CHECKS, examine
from esockd_cli.doctor.patient import Patient, Process, Subject
from esockd_core import OPTIONS, parse_address

if TYPE_CHECKING:
    from esockd_cli.doctor.findings import Finding, NotSeen
    from esockd_cli.doctor.machine import Machine

NETSTAT = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 {} {}\nIpExt: InOctets\nIpExt: 5\n"
SNMP = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams RcvbufErrors\nUdp: 7 {}\nUdpLite: InDatagrams\nUdpLite: 0\n"
SOCKSTAT = "sockets: used 27\nTCP: inuse 2 orphan 0 tw 7 alloc 10 mem {}\nUDP: inuse 0 mem 174\n"
STATUS = "Name:\tesockd\nUid:\t0\t{}\t0\t0\nGid:\t0\t0\t0\t0\n"
CLOCKS = "sys/devices/system/clocksource/clocksource0"
HEALTHY = {
    "proc/net/netstat": NETSTAT.format(0, 0),
    "proc/net/snmp": SNMP.format(0),
    "proc/net/sockstat": SOCKSTAT.format(10),
    "proc/sys/net/ipv4/tcp_mem": "1000\t2000\t3000\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "proc/sys/net/ipv4/ip_local_reserved_ports": "\n",
    "proc/sys/net/core/somaxconn": "4096\n",
    "proc/sys/net/core/rmem_max": "212992\n",
    "proc/sys/net/core/wmem_max": "212992\n",
    "proc/sys/net/netfilter/nf_conntrack_max": "1000\n",
    "proc/sys/net/netfilter/nf_conntrack_count": "10\n",
    "proc/meminfo": "MemTotal:       8388608 kB\nMemFree:  1 kB\n",
    "proc/self/cgroup": "0::/\n",
    "proc/812/cgroup": "0::/system.slice/edge.service\n",
    "proc/812/status": STATUS.format(33),
    f"{CLOCKS}/current_clocksource": "tsc\n",
    f"{CLOCKS}/available_clocksource": "tsc hpet acpi_pm\n",
}
PROCESS = Process(
    name="edge",
    pid=812,
    event_loop="uvloop",
    processes=1,
    open_file_limit=65_536,
    collector={"collections": 9, "seconds": 0.01, "longest": 0.002, "elapsed": 100.0},
)
GROUPS = {"", "tcp", "udp"}
FIELDS = {"is_forwarder", "upstreams", "folder"}


def listener(address: str = "127.0.0.1:5000", process: Process = PROCESS, **options: Any) -> Subject:
    """A listener with default options but for some, whose dots are written as two underscores."""
    given = {name.replace("__", "."): value for name, value in options.items() if name not in FIELDS}
    own = {name: value for name, value in options.items() if name in FIELDS}
    defaults = {name: each.default for name, each in OPTIONS.items() if each.group.partition(".")[0] in GROUPS}
    base = Subject(
        process=process,
        name="echo of edge",
        address=parse_address(address),
        options=defaults | {"proxy_protocol.policy": None} | given,
        is_forwarder=False,
        upstreams=None,
        folder=Path(),
        change=lambda name, value: f"set {name}={value}",
        remove_rule=lambda rule: f"remove {rule}",
    )
    return replace(base, **own)


def see(check: str, machine: Machine, *listeners: Subject, process: Process = PROCESS) -> list[Finding | NotSeen]:
    """What one check says."""
    patient = Patient(now=time.time(), machine=machine, processes=(process,), listeners=listeners)
    return [each.what for each in examine(patient, [each for each in CHECKS if each.name == check])]


def write(machine: Machine, path: str, text: str | None) -> None:
    """Change a file of the machine, or take it away."""
    file = machine.root / path
    if text is None:
        file.unlink()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
