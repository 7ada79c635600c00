"""Check esockd-speedups for leaks and for errors of memory.

Usage: .venv/bin/python -m tools.check_speedups leaks               many rounds on asyncio and uvloop
       .venv/bin/python -m tools.check_speedups sanitize [TESTS]    its own tests and those of streams, or the given
                                                                    ones, with gcc's sanitizers

Both compile it into .cache/speedups, with the interpreter that runs this script.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "packages" / "esockd-speedups" / "src" / "esockd_speedups"
BUILT = ROOT / ".cache" / "speedups"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
OWN_TESTS = ["tests/speedups"]  # in a process where nothing has bound it yet
STREAM_TESTS = ["tests/core/loops", "tests/core/connection", "tests/core/tls"]
PARTS: Final = 6
ROUNDS: Final = 40  # in a part, each with the clients below
CLIENTS: Final = 25
MESSAGES: Final = 40  # of a client
# What two parts may leave without a leak: the least that could leak with each of their connections would be more.
GROWTH_BYTES: Final = 16 * 1024
GROWTH_BLOCKS: Final = 400


def compile_into(folder: Path, *options: str) -> None:
    """Compile the package into a folder, and have this process and its children import it from there."""
    package = folder / SOURCE.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    name = f"_streams{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    warn = ["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
    command = ["gcc", "-g", "-shared", "-fPIC", include, *warn, *options, *map(str, sorted(package.glob("*.c")))]
    subprocess.run([*command, "-o", str(package / name)], check=True)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["ESOCKD_EXPECT_SPEEDUPS"] = "1"


def sanitize() -> int:
    """Run its own tests and those of streams with the address sanitizer and that of undefined behaviour."""
    compile_into(BUILT, "-O1", *SANITIZERS)
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",  # CPython keeps much until its end
        "PYTHONMALLOC": "malloc",  # or the sanitizer would see no single object
    }
    failed = 0
    for tests in [sys.argv[2:]] if sys.argv[2:] else [OWN_TESTS, STREAM_TESTS]:
        command = [sys.executable, "-m", "pytest", "-q", "--loops=asyncio,uvloop", *tests]
        failed |= subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return failed


async def one_round(listener: Any) -> None:
    """Clients that talk, some of which leave in the middle of what the handler does."""

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        for _ in range(MESSAGES):
            writer.write(b"x" * 64)
            await reader.readexactly(64)
        if number % 3 == 0:
            writer.transport.abort()
        else:
            writer.write(b"y" * (70_000 if number % 3 == 1 else 1))  # nobody reads the answer
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


async def handle(connection: Any) -> None:
    """Use every way of receiving and sending, and let some fail or be cancelled."""
    for _ in range(8):
        await connection.send(await connection.receive())
        connection.send(b"never sent").close()
    with suppress(TimeoutError):
        await asyncio.wait_for(connection.receive(), 0)
    async for data in connection:
        if len(data) % 2:
            connection.send_nowait(data)
        else:
            await connection.send(data)


class Malloc(ctypes.Structure):
    """struct mallinfo2; see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def malloc_bytes() -> int:
    """The memory that malloc has given out: not what it keeps for the next call, which differs from run to run."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        sys.exit("error: this check counts what malloc has given out, which takes mallinfo2 of glibc 2.33 or newer")
    ask.restype = Malloc
    given = ask()
    return int(given.uordblks + given.hblkhd)


async def find_leaks() -> int:
    """Print what each part leaves, and return 1 if the last ones left anything."""
    from esockd_core import open_listener  # noqa: PLC0415 - after the package was compiled
    from esockd_speedups import in_use  # noqa: PLC0415

    left: list[tuple[int, int, int]] = []
    async with open_listener("leaks", "127.0.0.1:0", handle) as listener:
        if not in_use():
            sys.exit("error: esockd-core does not use it")
        for part in range(PARTS):
            for _ in range(ROUNDS):
                await one_round(listener)
            while listener.connections:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.01)
            gc.collect()
            operations = sum(type(each).__name__ == "Operation" for each in gc.get_objects())
            left.append((sys.getallocatedblocks(), malloc_bytes(), operations))
            print("part {}: {:,} blocks, {:,} bytes of malloc, {} operations".format(part + 1, *left[-1]), flush=True)
    (blocks_before, bytes_before, _), (blocks, given, _) = left[-3], left[-1]
    grown = given - bytes_before > GROWTH_BYTES or blocks - blocks_before > GROWTH_BLOCKS
    return int(grown or any(operations for _, _, operations in left))


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["sanitize"]:
        sys.exit(sanitize())
    if sys.argv[1:] != ["leaks"]:
        sys.exit("error: which check? It is one of leaks, sanitize")
    import uvloop  # noqa: PLC0415 - only this check needs it

    malloc_bytes()  # or stop before the long part
    compile_into(BUILT, "-O2")
    found = 0
    for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        print(f"== {name}: {PARTS} parts of {ROUNDS * CLIENTS:,} connections, {MESSAGES} messages each", flush=True)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            found |= runner.run(find_leaks())
    sys.exit("error: it leaks" if found else 0)


if __name__ == "__main__":
    main()
