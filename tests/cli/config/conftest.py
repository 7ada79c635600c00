"""`esockd check` and `esockd run` with a file that a test writes, and writes again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from tests.cli.running import Answer, Instance, run_esockd
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Check: TypeAlias = Callable[..., Answer]

ECHO = '[listeners.echo]\nhandler = "echo"\nlisten = "127.0.0.1:0"\n'


class Running(Instance):
    """A running `esockd run edge.toml`.

    Args:
        folder: Where the file is.
        text: What it says at first.
        arguments: What follows on the command line.
        listeners: How many addresses it says it listens on.
    """

    def __init__(self, folder: Path, text: str, *arguments: str, listeners: int = 1) -> None:
        self.file = folder / "edge.toml"
        self.write(text)
        super().__init__("edge.toml", *arguments, command="run", cwd=folder)
        self.addresses = [self.read_address() for _ in range(listeners)]
        if self.addresses and self.addresses[0].rpartition(":")[2].isdecimal():
            self.port = int(self.addresses[0].rpartition(":")[2])

    def write(self, text: str) -> None:
        """Write the file."""
        self.file.write_text(text)

    def reload(self, text: str | None = None, *arguments: str) -> Answer:
        """Write the file, if it is to say something else, and reload."""
        if text is not None:
            self.write(text)
        return self.run("reload", *arguments)

    def options(self, listener: str = "echo") -> Any:
        """The options in force."""
        return json.loads(self.run("get", listener, "--json").out)["options"]

    def descriptors(self) -> int:
        """How many files it has open, but for the socket that asks."""
        return int(self.run("stats", "--json").json["instance"]["open_files"])


def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start instances that do not outlive the test."""
    started: list[Running] = []

    def start(text: str = ECHO, *arguments: str, listeners: int = 1) -> Running:
        started.append(Running(tmp_path, text, *arguments, listeners=listeners))
        return started[-1]

    yield start
    for instance in started:
        instance.__exit__(None, None, None)


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check a text as a file, from another folder."""

    def run(text: str | bytes, *arguments: str, **environment: str) -> Answer:
        content = text.encode() if isinstance(text, str) else text
        (tmp_path / "edge.toml").write_bytes(content)
        return run_esockd("check", "edge.toml", *arguments, cwd=tmp_path, **environment)

    return run
