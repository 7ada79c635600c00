"""The process that forks: it has imported all of `esockd`, and becomes the command of each request in a child.

A program of its own, which `forked.py` starts and whose requests come on stdin.
"""

from __future__ import annotations

import atexit
import json
import os
import posix
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

LONGEST_REQUEST = 1 << 20


def import_all(*names: str) -> None:
    """Import packages with all that is in them, but programs."""
    for name in names:
        for found in walk_packages(import_module(name).__path__, f"{name}."):
            if not found.name.endswith(("__main__", "_program")):
                import_module(found.name)


def serve() -> dict[str, Any]:
    """Fork for each request on stdin, and tell how each child ended; return in the child, with its request."""
    running: dict[int, tuple[int, socket.socket]] = {}
    with socket.socket(fileno=os.dup(0)) as requests, selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    pid, asker = running.pop(key.fd)
                    _, status = os.waitpid(pid, 0)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    with asker, suppress(OSError):  # whoever asked may have given up
                        asker.send(str(os.waitstatus_to_exitcode(status)).encode())
                    continue
                message, files, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
                if not message:
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGKILL)
                    sys.exit()
                asker = socket.socket(fileno=files.pop())
                pid = os.fork()
                if not pid:
                    for descriptor, (_, other) in running.items():
                        os.close(descriptor)
                        other.close()
                    asker.close()
                    for number, file in enumerate(files):
                        os.dup2(file, number)
                        os.close(file)
                    request: dict[str, Any] = json.loads(message)
                    return request
                for file in files:
                    os.close(file)
                descriptor = os.pidfd_open(pid)
                running[descriptor] = (pid, asker)
                selector.register(descriptor, selectors.EVENT_READ)


def end_with(status: object) -> None:
    """End as a program does, but without taking apart all that was imported, which would cost most."""
    assert isinstance(status, int)
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `os._exit`: that of coverage.py would save what the process that forks had measured, again and again.
    posix._exit(status)


def main() -> None:
    """Be the process that forks, and in its children the command."""
    import_all("esockd_core", "esockd_cli")
    request = serve()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = request["argv"]
    try:
        import_module("esockd_cli").main()
    except SystemExit as end:
        end_with(end.code)


if __name__ == "__main__":
    main()
