"""Instructions and system calls of a server for one operation, which do not depend on how busy the machine is.

Valgrind's callgrind counts the instructions that the process executes; strace counts its system calls. Instructions of
the kernel are in neither.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import BenchmarkError
from harness.processes import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

AT_ONCE: Final = 8  # clients, so that one wake-up of the event loop mostly serves several, as under load
MESSAGE: Final = b"x" * 64
STEP_TIMEOUT_S: Final = 120
WAITS: Final = frozenset({"epoll_wait", "epoll_pwait", "restart_syscall"})  # as many as there are wake-ups


def require(*tools: str) -> None:
    """Check that programs are installed.

    Raises:
        BenchmarkError: If one is missing.
    """
    for tool in tools:
        if shutil.which(tool) is None:
            raise BenchmarkError(f"{tool} is missing: install valgrind and strace to count instructions and calls")


def count_instructions(command: Sequence[str], mode: str, operations: int, cpus: frozenset[int]) -> float:
    """Count the instructions of one operation of an echo server.

    Args:
        command: Starts the server, which prints its port.
        mode: `echo`, `datagrams`, `connect` or `refuse`.
        operations: How many to measure.
        cpus: Where the server runs.

    Raises:
        BenchmarkError: If the server or valgrind does not do its part.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        dumps = itertools.count(1)

        def since_last() -> int:
            _control("-d", server.pid)
            match = re.search(r"^totals: (\d+)", Path(f"{out}.{next(dumps)}").read_text(), re.MULTILINE)
            if match is None:
                raise BenchmarkError("callgrind wrote no totals")
            return int(match[1])

        with (
            serving("the server", [*valgrind, *command], cpus, STEP_TIMEOUT_S) as (server, port),
            _Clients(mode, port, server.pid) as clients,
        ):
            _control("-i", server.pid, "on")
            for _ in range(operations // AT_ONCE // 4):
                clients.operate()
            since_last()
            began = time.monotonic()
            for _ in range(operations // AT_ONCE):
                clients.operate()
            took = time.monotonic() - began
            spent = since_last()
            time.sleep(took)  # what the server does by the clock is taken off
            return (spent - since_last()) / (operations // AT_ONCE * AT_ONCE)


def _control(what: str, pid: int, *words: str) -> None:
    done = subprocess.run(
        ["callgrind_control", what, *words, str(pid)],
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    if "OK." not in done.stdout:
        raise BenchmarkError(f"callgrind_control {what} failed: {done.stdout}{done.stderr}")


def count_calls(command: Sequence[str], mode: str, operations: int, cpus: frozenset[int]) -> dict[str, float]:
    """Count the system calls of one operation, by name, without those that wait for all sockets; see above.

    Raises:
        BenchmarkError: If the server or strace does not do its part.
    """
    with tempfile.NamedTemporaryFile("r") as out, ExitStack() as stack:
        server, port = stack.enter_context(serving("the server", command, cpus))
        clients = stack.enter_context(_Clients(mode, port, server.pid))
        for _ in range(8):
            clients.operate()
        strace = ["strace", "-f", "-c", "-U", "calls,name", "-o", out.name, "-p", str(server.pid)]
        popen = stack.enter_context(subprocess.Popen(strace, stderr=subprocess.PIPE, text=True))
        assert popen.stderr is not None
        try:
            if "attached" not in popen.stderr.readline():
                raise BenchmarkError(f"strace cannot attach to the server: {popen.stderr.read()}")
            for _ in range(operations // AT_ONCE):
                clients.operate()
        finally:
            popen.send_signal(signal.SIGINT)
            popen.wait(STEP_TIMEOUT_S)
        rows = re.findall(r"^\s*(\d+) (\w+)$", out.read(), re.MULTILINE)
    total = operations // AT_ONCE * AT_ONCE
    per_operation = {name: int(calls) / total for calls, name in rows if name not in WAITS | {"total"}}
    return {name: count for name, count in sorted(per_operation.items()) if count > 0.2}  # others go by the clock


class _Clients:
    """Clients of one server, which stands still while they act, so that each of its wake-ups finds the same work."""

    def __init__(self, mode: str, port: int, pid: int) -> None:
        self._port = port
        self._pid = pid
        self._connected = self._connected_datagrams if mode == "datagrams" else self._connected_streams
        operations = {"datagrams": self._echo, "connect": self._connect, "refuse": self._be_refused}
        self.operate = operations.get(mode, self._echo)
        self._open = ExitStack()
        self._clients: list[socket.socket] = []

    def __enter__(self) -> Self:
        if self.operate == self._echo:
            self._clients = self._connected(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def _connected_datagrams(self, stack: ExitStack) -> list[socket.socket]:
        clients = []
        for _ in range(AT_ONCE):
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.settimeout(STEP_TIMEOUT_S)
            client.connect(("127.0.0.1", self._port))
            clients.append(client)
        return clients

    def _connected_streams(self, stack: ExitStack) -> list[socket.socket]:
        clients = []
        for _ in range(AT_ONCE):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", self._port), STEP_TIMEOUT_S))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clients.append(client)
        return clients

    def _echo(self) -> None:
        with self._held():
            for client in self._clients:
                client.sendall(MESSAGE)
        self._get(MESSAGE, self._clients)

    def _connect(self) -> None:
        with ExitStack() as stack:
            with self._held():
                clients = self._connected(stack)
                for client in clients:
                    client.sendall(MESSAGE)
            self._get(MESSAGE, clients)
            with self._held():
                for client in clients:
                    client.shutdown(socket.SHUT_WR)
            self._get(b"", clients)

    def _be_refused(self) -> None:
        with ExitStack() as stack:
            with self._held():
                clients = self._connected(stack)
            self._get(b"", clients)

    def _get(self, wanted: bytes, clients: list[socket.socket]) -> None:
        for client in clients:
            if client.recv(len(wanted) or 1, socket.MSG_WAITALL) != wanted:
                raise BenchmarkError("the server did not answer as it should")
