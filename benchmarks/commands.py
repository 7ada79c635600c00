"""What it costs to start `esockd`: the CPU time of whole processes, next to importing the parser alone.

    python benchmarks/commands.py

A server with one listener runs meanwhile, and answers `stats` and `ps`. Each round starts every program once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

from harness.machine import facts, share_cpus
from harness.processes import end_on_sigterm, running
from harness.tables import markdown

ESOCKD = str(Path(sys.executable).with_name("esockd"))
PARSER = "import typer"
PROGRAMS = {
    "python": (sys.executable, "-c", ""),
    PARSER: (sys.executable, "-c", PARSER),
    "esockd --version": (ESOCKD, "--version"),
    "esockd --help": (ESOCKD, "--help"),
    "esockd stats": (ESOCKD, "stats"),
    "esockd ps": (ESOCKD, "ps"),
    "esockd explain ADDRESS": (ESOCKD, "explain", "2001:db8::1"),
    "esockd proxy decode HEX": (ESOCKD, "proxy", "decode", "0d0a0d0a000d0a515549540a20000000"),
}


def cpu_s(command: tuple[str, ...]) -> float:
    """The CPU time of a program, from its start to its end."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the facts and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    end_on_sigterm()
    shares = share_cpus(1)
    for title, value in facts(shares, ("esockd-cli", "esockd-core", "anyio", "typer")).items():
        print(f"- {title}: {value}")
    print(f"- rounds: {given.rounds}; the median counts\n")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ESOCKD_RUNTIME_DIR"] = folder
        server = (ESOCKD, "open", "echo", "127.0.0.1:0", "-i", "bench")
        with running("the server", server, shares.server) as process:
            process.read_line(timeout_s=20)
            os.sched_setaffinity(0, shares.client)
            figures: dict[str, list[float]] = {name: [] for name in PROGRAMS}
            for _ in range(given.rounds):
                for name, command in PROGRAMS.items():
                    figures[name].append(cpu_s(command))
    rows = []
    for name, seconds in figures.items():
        ratio = median(each / alone for each, alone in zip(seconds, figures[PARSER], strict=True))
        rows.append([name, f"{median(seconds) * 1e3:.0f} ms", f"{min(seconds) * 1e3:.0f} ms", f"{ratio:.2f}"])
    print(markdown(("program", "CPU time", "least", f"of `{PARSER}`"), rows))


if __name__ == "__main__":
    main()
