"""The echo servers that are compared, and what each is compared with."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from harness.load import compiled

PEERS = Path(__file__).resolve().parent / "peers"
MODES = ("echo", "connect", "refuse", "idle")
RULES = 1000
VS_RAW, VS_ANYIO, VS_SERVED = "vs raw, same loop", "vs anyio, same loop", "vs served"
VS_PYTHON = "vs the same in Python"


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        name: Of the row.
        command: What to run; it prints its port.
        mode: Of the load client.
        baselines: Which row the ratio in a column is taken against, by column.
    """

    name: str
    command: tuple[str, ...]
    mode: str
    baselines: dict[str, str] = field(default_factory=dict)


def python(script: str, *options: str) -> tuple[str, ...]:
    """The command of a peer, run by this interpreter."""
    return (sys.executable, str(PEERS / f"{script}.py"), *options)


def esockd(loop: str, style: str, max_connections: int, *options: str) -> tuple[str, ...]:
    """The command of ours: every admission check is switched on."""
    limits = ("--rules", str(RULES), "--max-connections", str(max_connections))
    return python("esockd", "--loop", loop, "--style", style, *limits, *options)


def serving_cases(mode: str, max_connections: int) -> list[Case]:
    """Every server that answers, for the modes echo, connect and idle."""
    same_loop = {
        loop: {VS_RAW: f"raw Protocol, {loop}", VS_ANYIO: f"anyio, {loop}"} for loop in ("uvloop", "asyncio")
    } | {"trio": {VS_RAW: "trio.serve_tcp", VS_ANYIO: "anyio, trio"}}
    cases = []
    if mode != "idle":  # there it holds nothing but a descriptor: 0 bytes
        cases.append(Case("C and epoll (floor)", (compiled("floor"),), mode))
    for loop in ("uvloop", "asyncio"):
        options, against = ("--loop", loop), same_loop[loop]
        cases += [
            Case(f"raw Protocol, {loop}", python("raw_protocol", *options), mode),
            Case(f"streams, {loop}", python("asyncio_streams", *options), mode, against),
        ]
    cases += [
        Case("trio.serve_tcp", python("trio_serve_tcp"), mode),
        Case("anyio, uvloop", python("anyio_listener", "--loop", "uvloop"), mode, same_loop["uvloop"]),
        Case("anyio, asyncio", python("anyio_listener", "--bounded-reads"), mode, same_loop["asyncio"]),
        Case("anyio, asyncio, as shipped", python("anyio_listener"), mode, same_loop["asyncio"]),
        Case("anyio, trio", python("anyio_listener", "--loop", "trio"), mode, same_loop["trio"]),
    ]
    cases += [
        Case(f"esockd {style}, {loop}", esockd(loop, style, max_connections), mode, same_loop[loop])
        for style in ("coroutine", "callback")
        for loop in ("uvloop", "asyncio", "trio")
    ]
    if find_spec("esockd_speedups") is not None:
        cases += [
            Case(
                f"esockd {style}, {loop}, speedups",
                esockd(loop, style, max_connections, "--speedups"),
                mode,
                same_loop[loop] | {VS_PYTHON: f"esockd {style}, {loop}"},
            )
            for style in ("coroutine", "callback")
            for loop in ("uvloop", "asyncio")
        ]
    return cases


def refusing_cases(max_connections: int) -> list[Case]:
    """Servers that turn everybody away, each beside itself serving: what an unwelcome client costs."""
    cases = []
    for loop in ("uvloop", "asyncio"):
        raw = python("raw_protocol", "--loop", loop)
        cases += [
            Case(f"raw Protocol, {loop}, served", raw, "connect"),
            Case(
                f"raw Protocol, {loop}, closed",
                (*raw, "--refuse"),
                "refuse",
                {VS_SERVED: f"raw Protocol, {loop}, served"},
            ),
        ]
    for loop in ("uvloop", "asyncio", "trio"):
        ours = f"esockd coroutine, {loop}"
        against = {VS_SERVED: f"{ours}, served"}
        if loop != "trio":
            against[VS_RAW] = f"raw Protocol, {loop}, closed"
        cases += [
            Case(f"{ours}, served", esockd(loop, "coroutine", max_connections), "connect"),
            Case(
                f"{ours}, denied by rule {RULES:,} of {RULES:,}",
                esockd(loop, "coroutine", max_connections, "--refuse"),
                "refuse",
                against,
            ),
        ]
    return cases


def cases_of(mode: str, max_connections: int) -> list[Case]:
    """The rows of one mode's table."""
    return refusing_cases(max_connections) if mode == "refuse" else serving_cases(mode, max_connections)
