"""Checks of the machine, by what its kernel counts and allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cli.doctor.patient import Patient

MACHINE: Final = "machine"
# Clocks that are read without a system call (vDSO); all others cost about a microsecond each time.
QUICK_CLOCKS: Final = frozenset(
    {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "riscv_clocksource", "timebase", "tod"}
)
NEARLY_FULL: Final = 0.8
FULL: Final = 0.95


def look_at_backlog_overflows(patient: Patient) -> Iterator[Finding]:
    """Clients that the kernel has turned away because a queue of new connections was full."""
    counters = patient.machine.counters("proc/net/netstat", "TcpExt")
    overflows, drops = counters.get("ListenOverflows", 0), counters.get("ListenDrops", 0)
    if overflows or drops:
        yield Finding(
            "warning",
            MACHINE,
            f"queues of new connections overflowed {overflows} times since the machine started, and {drops} new "
            "connections were dropped (ListenOverflows and ListenDrops of TcpExt)",
            "A dropped client tries again after a second, then after two more; a listener that cannot accept fast "
            "enough, or stood still, needs a longer queue or more workers.",
            "nstat -az TcpExtListenOverflows; esockd set tcp.backlog=4096 --reopen",
        )


def look_at_conntrack(patient: Patient) -> Iterator[Finding]:
    """The table of tracked connections."""
    folder = "proc/sys/net/netfilter"
    most = patient.machine.number(f"{folder}/nf_conntrack_max")
    count = patient.machine.number(f"{folder}/nf_conntrack_count")
    if most and count >= NEARLY_FULL * most:
        yield Finding(
            "error" if count >= FULL * most else "warning",
            MACHINE,
            f"the firewall tracks {count} connections, and has room for {most} (nf_conntrack_max)",
            "When the table is full, the packets of new connections are dropped without a word.",
            f"sudo sysctl -w net.netfilter.nf_conntrack_max={2 * most}",
        )


def look_at_tcp_memory(patient: Patient) -> Iterator[Finding]:
    """The memory of all TCP sockets, in pages."""
    _, pressure, most = ([*patient.machine.numbers("proc/sys/net/ipv4/tcp_mem"), 0, 0, 0])[:3]
    words = next(
        (line.split() for line in patient.machine.read("proc/net/sockstat").splitlines() if line.startswith("TCP:")), []
    )
    used = int(words[words.index("mem") + 1]) if "mem" in words else 0
    if pressure and used >= NEARLY_FULL * pressure:
        yield Finding(
            "error" if used >= pressure else "warning",
            MACHINE,
            f"TCP sockets use {used} pages of memory, and the kernel saves memory from {pressure} on (tcp_mem)",
            f"Under this pressure the kernel shrinks windows and drops data; at {most} pages it drops connections.",
            f'sudo sysctl -w net.ipv4.tcp_mem="{pressure} {2 * pressure} {2 * most}"',
        )


def look_at_udp_drops(patient: Patient) -> Iterator[Finding]:
    """Datagrams that the kernel has dropped because a receive buffer was full."""
    drops = patient.machine.counters("proc/net/snmp", "Udp").get("RcvbufErrors", 0)
    if drops:
        yield Finding(
            "warning",
            MACHINE,
            f"{drops} datagrams were dropped since the machine started because a receive buffer was full "
            "(RcvbufErrors of Udp)",
            "Nobody is told of them; `esockd stats` counts those of each listener as kernel_overflow.",
            "nstat -az UdpRcvbufErrors; esockd set udp.receive_buffer_bytes=4194304",
        )


def look_at_clock(patient: Patient) -> Iterator[Finding]:
    """What the kernel reads the time from."""
    folder = "sys/devices/system/clocksource/clocksource0"
    clock = patient.machine.read(f"{folder}/current_clocksource").strip()
    if clock not in QUICK_CLOCKS:
        known = patient.machine.read(f"{folder}/available_clocksource").split()
        quick = next((each for each in known if each in QUICK_CLOCKS), None)
        mend = (
            f"echo {quick} | sudo tee /{folder}/current_clocksource"
            if quick
            else "dmesg | grep -i clocksource tells why the kernel gave up the one of the processor"
        )
        yield Finding(
            "warning",
            MACHINE,
            f"the clock source is {clock}, which takes a system call to read",
            "Event loops read the clock at every wake-up, and timeouts and limits once more.",
            mend,
        )
