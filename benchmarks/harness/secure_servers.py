"""What echo servers behind TLS or DTLS cost, each started for one measurement."""

from __future__ import annotations

import argparse
import re
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import trustme

from harness.costs import cpu_ns, private_bytes
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import Process, serving
from harness.rounds import Sample, Series, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

Client = TypeVar("Client")
WARM_UP_TURNS = 30


def our_cases() -> dict[str, tuple[str, ...]]:
    """Our own server with each kind of handler on each event loop, as the command lines of peers have it."""
    return {
        f"esockd {style}, {loop}": ("--by", "esockd", "--style", style, "--loop", loop)
        for style in ("coroutine", "callback")
        for loop in ("uvloop", "asyncio", "trio")
    }


class SecureServers(ABC, Generic[Client]):
    """Servers that all have the same certificate, and what a client costs them.

    Attributes:
        PEER: The program of all servers.
        CASES: The arguments of each.
        AT_ONCE: How many clients take turns.
        FIRST, IDLE: How many clients are there when memory is first looked at, and how many more come then.
        authority: What clients trust.
        certfile: Certificate and key of the servers.
        shares: Where servers run.
        turns: How many messages each client sends.
    """

    PEER: ClassVar[Path]
    CASES: ClassVar[Mapping[str, Sequence[str]]]
    AT_ONCE: ClassVar[int]
    FIRST: ClassVar[int]
    IDLE: ClassVar[int]

    def __init__(self, folder: Path, shares: CpuShares, turns: int) -> None:
        self.authority = trustme.CA()
        self.certfile = folder / "server.pem"
        self.authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(self.certfile))
        self.shares = shares
        self.turns = turns

    @abstractmethod
    def connect(self, stack: ExitStack, port: int) -> Client:
        """A client that has echoed once, and leaves with the stack."""

    @abstractmethod
    def take_turns(self, clients: Sequence[Client], turns: int) -> None:
        """Every client sends one message, then each takes its echo, `turns` times over."""

    def start(self, stack: ExitStack, case: str) -> tuple[Process, int]:
        """Start the server of a case, which ends with the stack; return it and its port."""
        command = (sys.executable, str(self.PEER), *self.CASES[case], "--certfile", str(self.certfile))
        return stack.enter_context(serving(case, command, self.shares.server))

    def echo(self, case: str) -> Sample:
        """CPU time of the server for a message, in microseconds."""
        with ExitStack() as stack:
            server, port = self.start(stack, case)
            clients = [self.connect(stack, port) for _ in range(self.AT_ONCE)]
            self.take_turns(clients, WARM_UP_TURNS)
            before = cpu_ns(server.pid)
            self.take_turns(clients, self.turns)
            return Sample((cpu_ns(server.pid) - before) / 1000 / (self.turns * self.AT_ONCE), {})

    def idle(self, case: str) -> Sample:
        """Private memory of the server for a client that echoed once and is held, in bytes."""
        with ExitStack() as stack:
            server, port = self.start(stack, case)
            sizes = []
            for count in (self.FIRST, self.IDLE):
                for _ in range(count):
                    self.connect(stack, port)
                sizes.append(private_bytes(server.pid))
            return Sample((sizes[1] - sizes[0]) / self.IDLE, {})


class Comparison:
    """What the command line of a comparison of servers says.

    Attributes:
        tables: Which tables are wanted.
        turns: How many messages each client sends.
        shares: Where servers and clients run.
    """

    def __init__(self, doc: str | None, tables: Sequence[str], turns_of: str) -> None:
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(tables))
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--turns", type=int, default=300, help=f"messages of each {turns_of}")
        parser.add_argument("--only", type=re.compile, default=re.compile(""), help="cases whose name matches")
        options = parser.parse_args()
        self.tables: Sequence[str] = options.tables or tables
        if not set(self.tables) <= set(tables):
            parser.error(f"a table is one of {', '.join(tables)}")
        self.turns: int = options.turns
        self._rounds: int = options.rounds
        self._only: re.Pattern[str] = options.only
        raise_descriptor_limit()
        self.shares = share_cpus(1)

    def print_facts(self, *packages: str, openssl: str) -> None:
        """Say where the figures come from."""
        for name, value in facts(self.shares, packages).items():
            print(f"- {name}: {value}")
        print(f"- OpenSSL: {openssl}", flush=True)

    def chosen(self, cases: Iterable[str]) -> list[str]:
        """The cases that are wanted."""
        return [case for case in cases if self._only.search(case)]

    def measure(self, cases: Iterable[str], measure: Callable[[str], Sample]) -> dict[str, Series]:
        """Measure each case once in each round, and tell on stderr what has been measured."""

        def tell(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        return interleaved(cases, self._rounds, measure, tell)
