"""A load process: takes its plan from stdin, waits for the word, and writes what it counts to stdout.

Its stdin is what ties it to the command: at its end, whatever the reason, the load ends too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from esockd_cli.bench.engine import Load
from esockd_cli.bench.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_S: Final = 0.5
STDIN: Final = 0
STDOUT: Final = 1


def main() -> None:
    """Entry point."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    plan = Plan.from_dict(json.loads(_read_line()))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(plan))


def _read_line() -> bytes:
    """The first line of stdin, and not a byte more."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(STDIN, 1)):
        line += byte
    return line


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The quickest event loop there is."""
    if find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(plan: Plan) -> None:
    load = Load(plan)
    word = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        data = b""
        with suppress(BlockingIOError):
            data = os.read(STDIN, 4096)
        word.set()
        if not data:
            loop.remove_reader(STDIN)
            load.stopped.set()

    os.set_blocking(STDIN, False)
    loop.add_reader(STDIN, listen)
    reporting = asyncio.create_task(_report(load))
    try:
        await load.open_all()
        _write({"ready": load.tally.connected})
        await word.wait()
        gc.collect()
        gc.freeze()  # what stays is not looked at again
        if not load.stopped.is_set():
            await load.run()
    finally:
        reporting.cancel()
    _write({"final": load.tally.as_dict()})
    await load.close()


async def _report(load: Load) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        _write({"progress": load.tally.progress()})


def _write(message: dict[str, Any]) -> None:
    """Write a line; who would read it may have gone."""
    data = json.dumps(message).encode() + b"\n"
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(STDOUT, data) :]


if __name__ == "__main__":
    main()
