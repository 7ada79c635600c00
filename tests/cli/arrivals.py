"""Clients that come while something is replaced, and instances whose program is."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.cli.running import Instance

if TYPE_CHECKING:
    from types import TracebackType

LIMIT_S = 120.0  # an upgrade starts four programs, one after the other
PAUSE_S = 0.01  # between two clients of a thread


class Arrivals:
    """Clients that come one after the other, each with one request, in two threads.

    Attributes:
        served: How many got their answer.
        lost: What happened to the others.
    """

    def __init__(self, *places: Any) -> None:
        self.served = 0
        self.lost: list[str] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._arrive, args=(place,)) for place in places]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _arrive(self, place: Any) -> None:
        while not self._ends.wait(PAUSE_S):
            try:
                with socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET) as client:
                    client.settimeout(LIMIT_S)
                    client.connect(place)
                    client.sendall(b"hello")
                    if client.recv(10) == b"hello":
                        self.served += 1
                    else:
                        self.lost.append(f"{place}: closed")
            except OSError as error:
                self.lost.append(f"{place}: {error!r}")


class Upgraded(Instance):
    """An instance whose program may be another one later."""

    limit_s = LIMIT_S

    def pid(self) -> int:
        """The process that its control socket speaks for."""
        (path,) = (each for each in Path(self.folder).iterdir() if each.suffix == ".sock")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT_S)
            client.connect(str(path))
            return int(json.loads(client.makefile().readline())["esockd"]["pid"])

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is not None:  # a test that failed leaves nothing behind
            with suppress(OSError):
                os.kill(self.pid(), signal.SIGKILL)
        super().__exit__(exc_type, exc, traceback)

    def end(self) -> str:
        """End the program that there is now, and read what all of them told."""
        os.kill(self.pid(), signal.SIGTERM)
        answer = self.wait()
        assert answer.status == 0
        return answer.err


def wait_for_pid_after(instance: Upgraded, pid: int) -> int:
    deadline = time.monotonic() + LIMIT_S
    while (now := instance.pid()) == pid:
        assert time.monotonic() < deadline, "nobody took over"
        time.sleep(0.05)
    return now
