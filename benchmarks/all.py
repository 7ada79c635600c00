"""Run every benchmark, one after the other, and write what each prints into a file of its own.

    make bench-all                                  all of them: about two hours
    make bench-all ARGS="--only 'echo|tls'"         those whose name matches
    make bench-all ARGS="--list"                    their names and commands
    make bench-all ARGS="--also 'erlang=escript benchmarks/peers/esockd_on_erlang.escript'"

The files are build/benchmarks/NAME.md: date, command, machine, versions, tables. Those in benchmarks/results also say
what the figures mean. A benchmark that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = Path("build") / "benchmarks"


class Benchmark(NamedTuple):
    """One command.

    Attributes:
        name: Of the file with its output.
        words: The script in this folder and its arguments.
        group: The dependency group that it needs in an environment of its own; "" for that of `make`.
    """

    name: str
    words: str
    group: str = ""


BENCHMARKS: Final = (
    Benchmark("echo", "echo.py --rounds 9"),
    Benchmark("tls", "tls.py"),
    Benchmark("tls-handshakes", "tls.py handshake"),
    Benchmark("memory", "memory.py"),
    Benchmark("drain", "drain.py"),
    Benchmark("forward", "forward.py --rounds 7"),
    Benchmark("framing", "framing.py --rounds 9"),
    Benchmark("datagrams", "datagrams.py"),
    Benchmark("datagram-flood", "datagrams.py --mode flood"),
    Benchmark("datagram-turns", "datagram_turns.py"),
    Benchmark("trains", "trains.py"),
    Benchmark("dtls", "dtls.py"),
    Benchmark("dtls-flood", "dtls_flood.py"),
    Benchmark("rehearse", "rehearse.py --rounds 7"),
    Benchmark("instructions-rehearse", "instructions.py rehearse"),
    Benchmark("commands", "commands.py --rounds 10"),
    Benchmark("dashboard", "dashboard.py"),
    Benchmark("metrics", "metrics.py"),
    Benchmark("load-generator", "load_generator.py"),
    Benchmark("workers-uvloop", "workers.py --loop uvloop"),
    Benchmark("workers-trio", "workers.py --loop trio"),
    Benchmark("scaling", "scaling.py"),
    Benchmark("balance", "scaling.py --mode balance --clients 5000"),
    Benchmark("upgrades", "upgrades.py --upgrades 20 --rate 1000"),
    Benchmark("million", "million.py"),
    Benchmark("cidr", "cidr.py --rounds 15", group="bench-cidr"),
    Benchmark("proxyproto", "proxyproto.py", group="bench-proxyproto"),
    Benchmark("ratelimit", "ratelimit.py", group="bench-ratelimit"),
)


def python_for(group: str) -> Path:
    """The interpreter of the environment that has this group; it is made if it is not there."""
    if not group:
        return Path(sys.executable)
    folder = f".venv-{group}"
    subprocess.run([sys.executable, "-m", "tools.venv", folder, group], cwd=ROOT, check=True)
    return ROOT / folder / "bin" / "python"


def run(benchmark: Benchmark, also: Sequence[str]) -> bool:
    """Run one of them; return whether it ended well."""
    words = shlex.split(benchmark.words)
    if benchmark.name == "echo":
        words += [word for each in also for word in ("--also", each)]
    shown = shlex.join(["python", f"benchmarks/{words[0]}", *words[1:]])
    load = os.getloadavg()[0]
    print(f"== {benchmark.name}: {shown}", flush=True)
    began = time.monotonic()
    printed, failure = output_of(benchmark, words)
    when = f"On {time.strftime('%Y-%m-%d')}, at a load average of {load:.1f} before."
    failed = f"\n**It {failure}.**\n" if failure else ""
    (ROOT / FOLDER / f"{benchmark.name}.md").write_text(
        f"# {benchmark.name}\n\n    {shown}\n\n{when}\n{failed}\n{printed}"
    )
    outcome = failure or FOLDER / f"{benchmark.name}.md"
    print(f"== {benchmark.name}: {outcome}, {time.monotonic() - began:.0f} s", flush=True)
    return not failure


def output_of(benchmark: Benchmark, words: Sequence[str]) -> tuple[str, str]:
    """What it prints, and how it failed: "" if it did not."""
    try:
        python = python_for(benchmark.group)
    except subprocess.CalledProcessError:  # the lines above it say why
        return "", f"failed: the environment for the group {benchmark.group} could not be made"
    command = [str(python), f"benchmarks/{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout, f"failed with exit code {done.returncode}" if done.returncode else ""


def main() -> None:
    """Run those that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX", help="names that match")
    parser.add_argument("--list", action="store_true", help="print names and commands, and run nothing")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND", help="one more echo server")
    options = parser.parse_args()
    chosen = [each for each in BENCHMARKS if options.only.search(each.name)]
    if not chosen:
        parser.error(f"no benchmark matches --only {options.only.pattern}: --list prints their names")
    if options.list:
        for each in chosen:
            print(f"{each.name:<22} {each.words}")
        return
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    failed = [each.name for each in chosen if not run(each, options.also)]
    if failed:
        sys.exit(f"error: these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
