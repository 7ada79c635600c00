"""Each check of `esockd doctor`, on a machine of files that a test writes."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.doctor.machines import CLOCKS, NETSTAT, PROCESS, SNMP, SOCKSTAT, STATUS, listener, see, write

from esockd_cli.doctor.checks import CHECKS, examine
from esockd_cli.doctor.findings import Finding, NotSeen
from esockd_cli.doctor.patient import Patient
from esockd_cli.doctor.python import look_at_event_loop, look_at_python

if TYPE_CHECKING:
    from esockd_cli.doctor.machine import Machine

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_is_found_about_a_machine_and_a_listener_that_are_well(well: Machine) -> None:
    patient = Patient(now=time.time(), machine=well, processes=(PROCESS,), listeners=(listener(),))
    # This Python and this environment are those of whoever runs the tests.
    assert [each for each in examine(patient) if each.check != "python"] == []


@pytest.mark.parametrize(
    ("check", "path", "text", "level", "seen", "mend"),
    [
        (
            "backlog-overflows",
            "proc/net/netstat",
            NETSTAT.format(3, 5),
            "warning",
            "3 times.* 5 new",
            "tcp.backlog=4096",
        ),
        ("udp-drops", "proc/net/snmp", SNMP.format(9), "warning", "^9 datagrams", "receive_buffer_bytes"),
        (
            "conntrack",
            "proc/sys/net/netfilter/nf_conntrack_count",
            "800",
            "warning",
            "800 .*1000",
            "conntrack_max=2000",
        ),
        ("conntrack", "proc/sys/net/netfilter/nf_conntrack_count", "950", "error", "950 .*1000", "conntrack_max=2000"),
        (
            "tcp-memory",
            "proc/net/sockstat",
            SOCKSTAT.format(1600),
            "warning",
            "1600 .*2000",
            'tcp_mem="2000 4000 6000"',
        ),
        ("tcp-memory", "proc/net/sockstat", SOCKSTAT.format(2000), "error", "2000 pages", 'tcp_mem="2000 4000 6000"'),
        ("root", "proc/812/status", STATUS.format(0), "warning", "as root", "--user NAME"),
        ("clock", f"{CLOCKS}/current_clocksource", "hpet", "warning", "hpet", "echo tsc | sudo tee /sys/devices"),
        ("backlog", "proc/sys/net/core/somaxconn", "128", "warning", "1024, .* 128", "somaxconn=1024"),
    ],
)
def test_what_the_kernel_tells_is_found(
    well: Machine, check: str, path: str, text: str, level: str, seen: str, mend: str
) -> None:
    assert see(check, well, listener()) == []
    write(well, path, text)
    (found,) = see(check, well, listener())
    assert isinstance(found, Finding)
    assert found.level == level
    assert re.search(seen, found.seen)
    assert mend in found.mend
    assert found.why.endswith(".")


@pytest.mark.parametrize(
    ("check", "path"),
    [
        ("backlog-overflows", "proc/net/netstat"),
        ("udp-drops", "proc/net/snmp"),
        ("conntrack", "proc/sys/net/netfilter/nf_conntrack_max"),
        ("tcp-memory", "proc/net/sockstat"),
        ("tcp-memory", "proc/sys/net/ipv4/tcp_mem"),
        ("root", "proc/812/status"),
        ("clock", f"{CLOCKS}/current_clocksource"),
        ("backlog", "proc/sys/net/core/somaxconn"),
        ("ports", "proc/sys/net/ipv4/ip_local_port_range"),
        ("memory", "proc/meminfo"),
    ],
)
def test_a_check_that_cannot_look_says_so(well: Machine, check: str, path: str) -> None:
    write(well, path, None)
    (missed,) = see(check, well, listener())
    assert isinstance(missed, NotSeen)
    assert missed.reason == f"/{path}: no such file or directory"


@pytest.mark.parametrize("path", ["proc/sys/net/core/somaxconn", "proc/net/netstat", "proc/meminfo"])
def test_a_file_that_says_something_else_is_no_crash(well: Machine, path: str) -> None:
    for text in ("", "what?\n", "TcpExt: a b\nTcpExt: 1\n", "1 2\n"):
        write(well, path, text)
        assert all(isinstance(each, NotSeen) for name in ("backlog", "backlog-overflows", "memory")
                   for each in see(name, well, listener()))  # fmt: skip


def test_open_files_are_counted_over_all_listeners_of_a_process(well: Machine) -> None:
    small = replace(PROCESS, open_file_limit=2_112)
    two = [listener(process=small, max_connections=1_024) for _ in range(2)]
    assert see("open-files", well, *two, process=small) == []
    (found,) = see("open-files", well, *two, listener("udp://127.0.0.1:6", small), two[0], process=small)
    assert isinstance(found, Finding)
    assert "3072" in found.seen
    assert "leaves room for 2048" in found.seen
    assert "LimitNOFILE=3136" in found.mend


def test_a_forwarded_connection_takes_two_open_files(well: Machine) -> None:
    small = replace(PROCESS, open_file_limit=1_100)
    assert see("open-files", well, listener(process=small), process=small) == []
    assert len(see("open-files", well, listener(process=small, is_forwarder=True), process=small)) == 1


def test_processes_that_share_connections_have_a_limit_each(well: Machine) -> None:
    two = replace(PROCESS, open_file_limit=1_088, processes=2)
    assert see("open-files", well, listener(process=two, max_connections=2_048), process=two) == []
    assert len(see("open-files", well, listener(process=two, max_connections=2_049), process=two)) == 1


@pytest.mark.parametrize(
    ("process", "cgroup", "file"),
    [
        ("812", "0::/system.slice/edge.service\n", "sys/fs/cgroup/system.slice/edge.service/memory.max"),
        ("812", "0::/system.slice/edge.service\n", "sys/fs/cgroup/system.slice/memory.max"),
        ("812", "0::/\n", "sys/fs/cgroup/memory.max"),
        ("812", "4:memory:/docker/31\n0::/\n", "sys/fs/cgroup/memory/docker/31/memory.limit_in_bytes"),
        ("812", "4:cpu,memory:/docker/31\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ],
)
def test_connections_must_fit_into_the_memory_of_a_cgroup(well: Machine, process: str, cgroup: str, file: str) -> None:
    write(well, f"proc/{process}/cgroup", cgroup)
    write(well, file, "max\n" if file.endswith("max") else f"{1 << 62}\n")
    assert see("memory", well, listener(max_connections=10_000)) == []
    write(well, file, f"{512 << 20}\n")
    (full,) = see("memory", well, listener(max_connections=10_000))
    assert isinstance(full, Finding)
    assert full.level == "warning"
    assert f"the limit of its cgroup, /{file}, 512 MiB" in full.seen
    assert int(full.mend.partition("=")[2]) < 10_000
    (idle,) = see("memory", well, listener(max_connections=1_000_000))
    assert isinstance(idle, Finding)
    assert idle.level == "error"


def test_connections_must_fit_into_the_memory_of_the_machine(well: Machine) -> None:
    (found,) = see("memory", well, listener("tls://127.0.0.1:5000", max_connections=500_000))
    assert isinstance(found, Finding)
    assert "the memory of this machine, 8 GiB" in found.seen
    assert found.level == "error"


def test_a_forwarder_needs_ports(well: Machine) -> None:
    many: dict[str, Any] = {"is_forwarder": True, "max_connections": 50_000}
    (found,) = see("ports", well, listener(**many))
    assert isinstance(found, Finding)
    assert "28232 ports" in found.seen
    assert see("ports", well, listener(**many, upstreams=2)) == []
    assert see("ports", well, listener(**many, upstreams=0)) == []


@pytest.mark.parametrize(("reserved", "count"), [("", 1), ("8080,39990-40010", 0), ("40000", 0), ("39999", 1)])
def test_a_listener_should_not_have_a_port_of_clients(well: Machine, reserved: str, count: int) -> None:
    write(well, "proc/sys/net/ipv4/ip_local_reserved_ports", f"{reserved}\n")
    found = see("ports", well, listener("127.0.0.1:40000"))
    assert len(found) == count
    for each in found:
        assert isinstance(each, Finding)
        assert each.mend.endswith(
            ",".join(filter(None, [f"ip_local_reserved_ports={reserved}", "40000"])).replace("=,", "=")
        )
    assert see("ports", well, listener("127.0.0.1:0"), listener("unix:/run/echo.sock")) == []


@pytest.mark.parametrize(
    ("address", "option", "setting"),
    [
        ("udp://127.0.0.1:5000", "udp__receive_buffer_bytes", "rmem_max"),
        ("udp://127.0.0.1:5000", "udp__send_buffer_bytes", "wmem_max"),
        ("127.0.0.1:5000", "tcp__receive_buffer_bytes", "rmem_max"),
    ],
)
def test_a_buffer_must_be_one_that_the_kernel_gives(well: Machine, address: str, option: str, setting: str) -> None:
    small: dict[str, Any] = {option: 212_992}
    large: dict[str, Any] = {option: 4_194_304}
    assert see("buffers", well, listener(address, **small)) == []
    (found,) = see("buffers", well, listener(address, **large))
    assert isinstance(found, Finding)
    assert found.mend == f"sudo sysctl -w net.core.{setting}=4194304"


def test_time_in_the_collector_is_found(well: Machine) -> None:
    told: dict[str, Any] = {"collections": 9, "seconds": 0.3, "longest": 0.12, "elapsed": 100.0}
    (found,) = see("collector", well, process=replace(PROCESS, collector=told))
    assert isinstance(found, Finding)
    assert "0.3 s of 100 s" in found.seen
    often = told | {"longest": 0.001, "seconds": 6.0}
    assert len(see("collector", well, process=replace(PROCESS, collector=often))) == 1
    (missed,) = see("collector", well, process=replace(PROCESS, collector=None))
    assert isinstance(missed, NotSeen)


def test_an_untested_python_and_slow_modes_are_found() -> None:
    patient = Patient(now=0.0)
    assert [*look_at_python(patient, version=(3, 11), release="final", environment={})] == []
    (old,) = look_at_python(patient, version=(3, 99), release="final", environment={})
    assert "this Python is 3.99" in old.seen
    (early,) = look_at_python(patient, version=(3, 11), release="candidate", environment={})
    assert "3.11 (candidate)" in early.seen
    slow = {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"}
    assert len([*look_at_python(patient, version=(3, 11), release="final", environment=slow)]) == 2


def test_a_missing_uvloop_is_found_or_an_instance_without_it() -> None:
    plain = Patient(now=0.0, processes=(replace(PROCESS, event_loop="asyncio"),))
    assert [each.mend for each in look_at_event_loop(plain, has_uvloop=True)] == ["start it without --loop asyncio"]
    assert [each.mend for each in look_at_event_loop(plain, has_uvloop=False)] == ["pip install 'esockd-cli[uvloop]'"]
    assert [each.subject for each in look_at_event_loop(Patient(now=0.0), has_uvloop=False)] == ["python"]
    assert [*look_at_event_loop(Patient(now=0.0, processes=(PROCESS,)), has_uvloop=False)] == []


def test_the_page_has_every_check() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    assert re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page, re.MULTILINE) == [(each.name, each.text) for each in CHECKS]
