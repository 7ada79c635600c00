"""The program of a worker process; `python -m esockd_core.workers._program DESCRIPTOR DESCRIPTOR` starts it.

The first descriptor is its end of a socket pair. The worker first reads its order there. Then it speaks as a control
socket does: its greeting says that it accepts, or an error says why it cannot. On the second one come the descriptors
for listeners that are opened later.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import SocketStream

from esockd_core._connection.registry import begin_ids_at
from esockd_core._platform.child_processes import die_with_parent, pin_to
from esockd_core._remote.errors import error_to_json
from esockd_core._remote.instance import Instance
from esockd_core._remote.pace import Pace
from esockd_core._remote.session import Session
from esockd_core._remote.wire import encode
from esockd_core.workers._orders import RETIRE, read_order
from esockd_core.workers._pipe import Pipe, UntoldChanges
from esockd_core.workers._worker import Worker, cannot_start, find

if TYPE_CHECKING:
    from esockd_core.workers._orders import Order

CANNOT_START: Final = 3
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # they are for the parent


def main() -> int:
    """Serve until the parent says that this worker retires, and its last connection has ended.

    Returns:
        The exit status.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    pair, inbox = (socket.socket(fileno=int(each)) for each in sys.argv[1:])
    try:
        order = read_order(pair)
    except EOFError:
        return CANNOT_START
    except Exception as error:  # noqa: BLE001 (told to the parent)
        _tell_failure(pair, error)
        return CANNOT_START
    die_with_parent(order.parent)
    try:
        worker = _prepare(order, inbox)
        anyio.run(_serve, order, worker, pair, backend=order.backend, backend_options=order.backend_options)
    except Exception as error:  # noqa: BLE001 (told to the parent)
        _tell_failure(pair, error)
        return CANNOT_START
    return 0


def _prepare(order: Order, inbox: socket.socket) -> Worker:
    if order.processors:
        pin_to(order.processors)
    begin_ids_at(order.first_id)
    if order.setup is not None:
        find(order.setup)(*order.setup_arguments)
    return Worker(order, inbox)


def _tell_failure(pair: socket.socket, error: Exception) -> None:
    with suppress(OSError):  # the parent has ended
        pair.setblocking(True)
        for line in encode({"error": error_to_json(cannot_start(error))}):
            pair.sendall(line)


async def _serve(order: Order, worker: Worker, pair: socket.socket) -> None:
    with anyio.open_signal_receiver(RETIRE) as signals:
        async with anyio.create_task_group() as task_group:
            await worker.start(task_group)
            pair.setblocking(False)
            pipe = Pipe(await SocketStream.from_socket(pair.dup()))
            task_group.start_soon(_speak, worker, pipe, f"worker-{order.number}")
            await anext(signals)
            await worker.retire()
            pipe.end()
            task_group.cancel_scope.cancel()


async def _speak(worker: Worker, pipe: Pipe, name: str) -> None:
    instance = Instance(worker, name, worker.methods())
    await Session(instance, UntoldChanges(), pipe, None, Pace(share=1.0), is_read_only=False, most=None).serve()
    if not pipe.draining:  # the parent has ended
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
