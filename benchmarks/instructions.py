"""Instructions and system calls of one operation, which do not depend on how busy the machine is.

    python benchmarks/instructions.py rehearse            what a rehearsal adds to a connection
    python benchmarks/instructions.py before CHECKOUT     beside another checkout, after `make ready-run` there

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


def server(checkout: Path, case: str, *options: str, is_datagrams: bool = False) -> list[str]:
    """The command of the echo server of a checkout."""
    loop, style = case.split(", ")
    name, how = ("datagram_echo.py", "--server") if is_datagrams else ("esockd.py", "--style")
    peer = checkout / "benchmarks" / "peers" / name
    return [str(checkout / ".venv" / "bin" / "python"), str(peer), "--loop", loop, how, style, *options]


def compare_rehearsals(only: re.Pattern[str], cpus: frozenset[int]) -> str:
    """The table of what each kind of rehearsal adds."""
    rows = []
    for case in filter(only.search, CASES):
        off = 0.0
        for name, what in REHEARSED.items():
            spent = count_instructions(server(HERE, case, "--rehearse", what), "connect", OPERATIONS["connect"], cpus)
            off = off or spent
            rows.append([f"{case}, {name}", f"{spent:,.0f}", "" if name == "off" else f"{spent / off:.3f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    return markdown(["loop, handler, rehearsal", "instructions/connection", "vs off"], rows)


def compare_checkouts(before: Path, only: re.Pattern[str], cpus: frozenset[int]) -> str:
    """The table of two checkouts beside each other."""
    rows = []
    for mode, operations in OPERATIONS.items():
        for case in filter(only.search, CASES):
            if mode == "refuse" and "callback" in case:
                continue  # no handler sees it
            words = ["--refuse"] if mode == "refuse" else []
            spent, calls = [], []
            for checkout in (before, HERE):
                command = server(checkout, case, *words, is_datagrams=mode == "datagrams")
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


def main() -> None:
    """Print the facts and a table."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rehearse", "before"])
    parser.add_argument("checkout", type=Path, nargs="?", help="of the commit to compare with")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="loops and handlers that match")
    options = parser.parse_args()
    if (options.checkout is None) != (options.what == "rehearse"):
        parser.error("`before` takes a checkout, and `rehearse` takes none")
    os.environ["PYTHONHASHSEED"] = "0"
    raise_descriptor_limit()
    shares = share_cpus(1)
    try:
        require("valgrind", "callgrind_control", "strace")
        for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
            print(f"- {name}: {value}", flush=True)
        print()
        if options.what == "rehearse":
            print(compare_rehearsals(options.only, shares.server))
        else:
            print(compare_checkouts(options.checkout.resolve(), options.only, shares.server))
    except BenchmarkError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
