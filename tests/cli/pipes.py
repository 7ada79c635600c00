"""Pipes to a process that another one starts and waits for."""

from __future__ import annotations

import os
import selectors
import time
from io import FileIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


def make_pipe() -> tuple[FileIO, FileIO]:
    """The two ends of a new pipe: the one to read from, and the one to write to."""
    reading, writing = os.pipe()
    return FileIO(reading, "rb"), FileIO(writing, "wb")


def converse(
    end: socket.socket, stdin: FileIO, outputs: tuple[FileIO, FileIO], given: bytes, timeout: float
) -> tuple[bytes, bytes, bytes]:
    """Write to a process and read from it until its end is told.

    Args:
        end: Where its end is told.
        stdin: Our end of the pipe on its stdin, which is closed once everything is written.
        outputs: Our ends of the pipes on its stdout and stderr.
        given: What it reads on stdin.
        timeout: The most seconds that it may take.

    Returns:
        What was told (nothing if whoever tells it is gone), and what the process wrote on stdout and stderr.

    Raises:
        TimeoutError: If it has not ended in time.
    """
    written = {each: bytearray() for each in outputs}
    with selectors.DefaultSelector() as selector:
        selector.register(end, selectors.EVENT_READ)
        selector.register(stdin, selectors.EVENT_WRITE)
        for each in outputs:
            selector.register(each, selectors.EVENT_READ)
        for file in (stdin, *outputs):
            os.set_blocking(file.fileno(), False)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            ready = {key.fileobj for key, _ in selector.select(left)}
            if stdin in ready:
                given = given[write(stdin, given) :]
                if not given:
                    selector.unregister(stdin)
                    stdin.close()
            for each in outputs:
                if each in ready and not read(each, written[each]):
                    selector.unregister(each)
            if end in ready:
                told = end.recv(16)
                for each in outputs:
                    read(each, written[each])
                return told, bytes(written[outputs[0]]), bytes(written[outputs[1]])
    raise TimeoutError


def write(file: FileIO, data: bytes) -> int:
    """Write what there is room for; say how many bytes need not be written any more."""
    try:
        return file.write(data) or 0
    except BrokenPipeError:
        return len(data)


def read(file: FileIO, into: bytearray) -> bool:
    """Read everything that is there; say whether more may come."""
    while data := file.read(65_536):
        into += data
    return data is None
