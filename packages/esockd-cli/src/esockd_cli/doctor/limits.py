"""Checks of what listeners ask for against what the machine gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli._summary import format_bytes
from esockd_cli.doctor.findings import Finding, NotSeen
from esockd_cli.doctor.machine import CannotSee

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cli.doctor.findings import Level
    from esockd_cli.doctor.patient import Patient, Subject

OTHER_FILES: Final = 64  # that core keeps for listeners, logs and the loop
# What an idle connection takes in the process, measured on uvloop with a coroutine handler.
IDLE_BYTES: Final = {"tcp": 3_000, "unix": 3_000, "udp": 3_000, "tls": 22_000, "dtls": 87_000}
PORT_RANGE: Final = "proc/sys/net/ipv4/ip_local_port_range"
RESERVED_PORTS: Final = "proc/sys/net/ipv4/ip_local_reserved_ports"
BUFFERS: Final = (
    ("tcp.receive_buffer_bytes", "rmem_max"),
    ("tcp.send_buffer_bytes", "wmem_max"),
    ("udp.receive_buffer_bytes", "rmem_max"),
    ("udp.send_buffer_bytes", "wmem_max"),
)


def look_at_open_files(patient: Patient) -> Iterator[Finding]:
    """The limit on open files against the connections that all listeners of a process let in."""
    for process, listeners in patient.by_process():
        limit = process.open_file_limit
        if limit is None:
            continue
        room = (limit - min(OTHER_FILES, limit // 4)) * process.processes
        streams = [each for each in listeners if not each.address.is_datagram]
        wanted = sum((each.most_connections or 0) * (2 if each.is_forwarder else 1) for each in streams)
        if wanted > room:
            of_each = f" of each of {process.processes} processes" if process.processes > 1 else ""
            needed = -(-wanted // process.processes) + OTHER_FILES
            how = "a forwarded connection takes two" if any(each.is_forwarder for each in streams) else "each takes one"
            yield Finding(
                "warning",
                process.name,
                f"its listeners let in {wanted} descriptors' worth of connections ({how}), and the open-file limit"
                f"{of_each}, {limit}, leaves room for {room}",
                "Without a free descriptor, accept fails: clients wait in the queue until others leave.",
                f"ulimit -n {needed} in the shell that starts it, or LimitNOFILE={needed} in its systemd unit",
            )


def look_at_backlog(patient: Patient) -> Iterator[Finding]:
    """The kernel's limit on queues of new connections against what listeners ask for."""
    streams = [each for each in patient.listeners if not each.address.is_datagram]
    if not streams:
        return
    most = patient.machine.number("proc/sys/net/core/somaxconn")
    for each in streams:
        if (asked := each.option("tcp.backlog", 0)) > most:
            yield Finding(
                "warning",
                each.name,
                f"its backlog is {asked}, and the kernel makes it {most} (net.core.somaxconn)",
                "When that many clients wait, the kernel turns away the next ones.",
                f"sudo sysctl -w net.core.somaxconn={asked}",
            )


def look_at_ports(patient: Patient) -> Iterator[Finding]:
    """The ports that the kernel gives to clients: forwarders need them, and listeners should not have one of them."""
    if not patient.listeners:
        return
    first, last = ([*patient.machine.numbers(PORT_RANGE), 0, 0])[:2]
    count = last - first + 1
    reserved = read_ranges(patient.machine.read(RESERVED_PORTS))
    for each in patient.listeners:
        upstreams = 1 if each.upstreams is None else each.upstreams
        if each.is_forwarder and upstreams and (each.most_connections or 0) > count * upstreams:
            yield Finding(
                "warning",
                each.name,
                f"it forwards up to {each.most_connections} connections, and the kernel has {count} ports for those to "
                f"one upstream (ip_local_port_range {first} {last})",
                "Beyond that, connecting to the upstream fails, and the client is reset.",
                'sudo sysctl -w net.ipv4.ip_local_port_range="1024 65535", or a second upstream',
            )
        port = each.address.port or 0
        if first <= port <= last and not any(port in taken for taken in reserved):
            yield Finding(
                "warning",
                each.name,
                f"its port {port} is one of those that the kernel gives to clients ({first} to {last})",
                "While it is restarted, a connection of another program may get the port, and it cannot start.",
                f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={','.join([*map(write_range, reserved), str(port)])}",
            )


def read_ranges(text: str) -> list[range]:
    """Ports such as "8080,9000-9010"."""
    bounds = (part.partition("-") for part in text.strip().split(",") if part)
    return [range(int(low), int(high or low) + 1) for low, _, high in bounds]


def write_range(ports: range) -> str:
    """A range as the kernel writes it."""
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"


def look_at_buffers(patient: Patient) -> Iterator[Finding]:
    """The kernel's limits on buffers of sockets against what listeners ask for."""
    for each in patient.listeners:
        for name, setting in BUFFERS:
            asked = each.option(name)
            if asked is None or name.startswith("udp.") != each.address.is_datagram:
                continue
            most = patient.machine.number(f"proc/sys/net/core/{setting}")
            if asked > most:
                yield Finding(
                    "warning",
                    each.name,
                    f"it asks for {name} {asked}, and the kernel gives {most} (net.core.{setting})",
                    "A burst that does not fit is dropped."
                    if "udp" in name
                    else "Fast and distant clients are slowed.",
                    f"sudo sysctl -w net.core.{setting}={asked}",
                )


def look_at_memory(patient: Patient) -> Iterator[Finding | NotSeen]:
    """The memory of as many connections as may be open against the limit of the cgroup, or the machine."""
    for process, listeners in patient.by_process():
        try:
            limit, source = patient.machine.memory_limit(process.folder_in_proc)
        except CannotSee as reason:
            yield NotSeen(process.name, str(reason))
            continue
        idle, full = (sum(map(cost, listeners)) for cost in (idle_bytes, full_bytes))
        if full <= limit:
            continue
        listed = ", ".join(f"{each.most_connections} of {each.name}" for each in listeners if each.most_connections)
        what = f"{source}, {format_bytes(limit)}"
        level: Level = "error" if idle > limit else "warning"
        state, taken = ("idle", idle) if level == "error" else ("with full buffers", full)
        largest = max(listeners, key=full_bytes)
        fitting = int((largest.most_connections or 0) * limit / full) or 1
        yield Finding(
            level,
            process.name,
            f"{state}, its connections may take {format_bytes(taken)} ({listed}), which is more than {what}",
            "A process that takes more than its limit is killed, with every connection it has.",
            largest.change("max_connections", str(fitting)),
        )


def idle_bytes(listener: Subject) -> int:
    """What the connections of a listener take while nothing is sent."""
    each = IDLE_BYTES[listener.address.transport]
    return (listener.most_connections or 0) * each * (2 if listener.is_forwarder else 1)


def full_bytes(listener: Subject) -> int:
    """The same with buffers that slow peers and handlers have filled."""
    buffers: int = listener.option("read_buffer_bytes", 0) + listener.option("write_buffer_bytes", 0)
    return idle_bytes(listener) + (listener.most_connections or 0) * buffers
