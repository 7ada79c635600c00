"""A private Redis or Valkey server that tests may stop, pause and start again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisServer:
    """One server process on a Unix socket of its own, which keeps nothing on disk."""

    def __init__(self, executable: str, folder: Path) -> None:
        self.path = folder / "s"
        self.url = f"unix://{self.path}"
        self._command = [executable, "--port", "0", "--unixsocket", str(self.path), "--save", "", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
                else:
                    return

    def pause(self) -> None:
        """Let it answer nobody, with its connections open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word, with all it knew."""
        assert self._process
        self._process.kill()
        self._process.wait(20)
        self._process = None

    def stop(self) -> None:
        """Stop it, with all it knew."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(20)
            self._process = None


def running_server(folder: Path) -> Iterator[RedisServer]:
    """A server while a test runs; the test skips where none is installed."""
    executable = shutil.which("redis-server") or shutil.which("valkey-server")
    if not executable:
        reason = "neither redis-server nor valkey-server is installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = RedisServer(executable, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
