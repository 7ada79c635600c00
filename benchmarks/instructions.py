"""Instructions and system calls of one operation, which do not depend on how busy the machine is.

    python benchmarks/instructions.py rehearse            what a rehearsal adds to a connection
    python benchmarks/instructions.py before CHECKOUT     beside another checkout, after `make ready-run` there
    python benchmarks/instructions.py speedups            what esockd-speedups takes off, where it is installed

It needs valgrind and strace. Instructions of the kernel are not counted, so a ratio of CPU times is nearer to 1 than
one of instructions. The server stands still while eight clients act, and then finds the work of all of them at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from harness.errors import BenchmarkError
from harness.instructions import count_calls, count_instructions, require
from harness.machine import facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm
from harness.tables import markdown

HERE = Path(__file__).resolve().parent.parent
CASES = [f"{loop}, {style}" for loop in ("uvloop", "asyncio", "trio") for style in ("coroutine", "callback")]
REHEARSED = {"off": "none", "passes": "pass", "sources": "sources", "refused": "refuse"}
OPERATIONS = {"echo": 4_000, "datagrams": 4_000, "connect": 800, "refuse": 800}


def peer(checkout: Path, mode: str) -> Path:
    """The echo server of a checkout."""
    return checkout / "benchmarks" / "peers" / ("datagram_echo.py" if mode == "datagrams" else "esockd.py")


def server(checkout: Path, mode: str, case: str, *options: str) -> list[str]:
    """The command of the echo server of a checkout."""
    loop, style = case.split(", ")
    how = "--server" if mode == "datagrams" else "--style"
    program = [str(checkout / ".venv" / "bin" / "python"), str(peer(checkout, mode))]
    return [*program, "--loop", loop, how, style, *options]


def comparable(before: Path) -> list[str]:
    """The modes that a checkout has a server for; say which ones it has none for."""
    modes = []
    for mode in OPERATIONS:
        if peer(before, mode).is_file():
            modes.append(mode)
        else:
            print(f"- left out: {mode}, because {peer(before, mode)} does not exist", flush=True)
    return modes


def compare_rehearsals(only: re.Pattern[str], cpus: frozenset[int]) -> str:
    """The table of what each kind of rehearsal adds."""
    rows = []
    for case in filter(only.search, CASES):
        off = 0.0
        for name, what in REHEARSED.items():
            spent = count_instructions(
                server(HERE, "connect", case, "--rehearse", what), "connect", OPERATIONS["connect"], cpus
            )
            off = off or spent
            rows.append([f"{case}, {name}", f"{spent:,.0f}", "" if name == "off" else f"{spent / off:.3f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    return markdown(["loop, handler, rehearsal", "instructions/connection", "vs off"], rows)


def compare_checkouts(before: Path, modes: list[str], only: re.Pattern[str], cpus: frozenset[int]) -> str:
    """The table of two checkouts beside each other."""
    rows = []
    for mode in modes:
        operations = OPERATIONS[mode]
        for case in filter(only.search, CASES):
            if mode == "refuse" and "callback" in case:
                continue  # no handler sees it
            words = ["--refuse"] if mode == "refuse" else []
            spent, calls = [], []
            for checkout in (before, HERE):
                command = server(checkout, mode, case, *words)
                spent.append(count_instructions(command, mode, operations, cpus))
                calls.append(sum(count_calls(command, mode, operations // 4, cpus).values()))
            rows.append(
                [
                    f"{mode}, {case}",
                    *(f"{each:,.0f}" for each in spent),
                    f"{spent[1] / spent[0]:.3f}",
                    *(f"{each:.1f}" for each in calls),
                ]
            )
            print(*rows[-1], file=sys.stderr, flush=True)
    header = ["operation", "instructions before", "after", "ratio", "calls before", "after"]
    return markdown(header, rows)


def compare_speedups(only: re.Pattern[str], cpus: frozenset[int]) -> str:
    """The table of Python alone and esockd-speedups beside each other."""
    rows = []
    for mode in ("echo", "connect"):
        for case in filter(only.search, CASES):
            if "trio" in case:
                continue  # which it does nothing for
            spent = [
                count_instructions(server(HERE, mode, case, *words), mode, OPERATIONS[mode], cpus)
                for words in ([], ["--speedups"])
            ]
            rows.append([f"{mode}, {case}", *(f"{each:,.0f}" for each in spent), f"{spent[1] / spent[0]:.3f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    return markdown(["operation", "instructions in Python", "with speedups", "ratio"], rows)


def main() -> None:
    """Print the facts and a table."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rehearse", "before", "speedups"])
    parser.add_argument("checkout", type=Path, nargs="?", help="of the commit to compare with")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="loops and handlers that match")
    options = parser.parse_args()
    if (options.checkout is not None) != (options.what == "before"):
        parser.error("`before` takes a checkout, and nothing else does")
    os.environ["PYTHONHASHSEED"] = "0"
    raise_descriptor_limit()
    shares = share_cpus(1)
    try:
        require("valgrind", "callgrind_control", "strace")
        for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
            print(f"- {name}: {value}", flush=True)
        if options.what == "rehearse":
            table = compare_rehearsals(options.only, shares.server)
        elif options.what == "speedups":
            table = compare_speedups(options.only, shares.server)
        else:
            before = options.checkout.resolve()
            table = compare_checkouts(before, comparable(before), options.only, shares.server)
        print(f"\n{table}")
    except BenchmarkError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
