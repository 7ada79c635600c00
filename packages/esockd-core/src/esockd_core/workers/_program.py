"""The program of a worker process; `python -m esockd_core.workers._program DESCRIPTOR` starts it.

The descriptor is its end of a socket pair. The worker first reads its order there. Then it speaks as a control socket
does: its greeting says that it accepts, or an error says why it cannot.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio.abc import SocketStream

from esockd_core._connection.registry import begin_ids_at
from esockd_core._errors import EsockdError
from esockd_core._platform.child_processes import die_with_parent, pin_to
from esockd_core._remote.errors import ControlError, error_to_json
from esockd_core._remote.instance import Instance
from esockd_core._remote.pace import Pace
from esockd_core._remote.session import Session
from esockd_core._remote.wire import encode
from esockd_core.control.handler_path import import_handler
from esockd_core.workers._listener import SharedListener
from esockd_core.workers._memory import SharedMemory
from esockd_core.workers._orders import RETIRE, read_order
from esockd_core.workers._pipe import Pipe, UntoldChanges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esockd_core._connection.handler import Handler
    from esockd_core.workers._orders import ListenerOrder, Order

CANNOT_START: Final = 3
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # they are for the parent


def main() -> int:
    """Serve until the parent says that this worker retires, or closes all listeners.

    Returns:
        The exit status.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    pair = socket.socket(fileno=int(sys.argv[1]))
    try:
        order = read_order(pair)
    except EOFError:
        return CANNOT_START
    except Exception as error:  # noqa: BLE001 (told to the parent)
        _tell_failure(pair, error)
        return CANNOT_START
    die_with_parent(order.parent)
    try:
        listeners = _prepare(order)
        anyio.run(_serve, order, listeners, pair, backend=order.backend, backend_options=order.backend_options)
    except Exception as error:  # noqa: BLE001 (told to the parent)
        _tell_failure(pair, error)
        return CANNOT_START
    return 0


def _prepare(order: Order) -> list[SharedListener]:
    if order.processors:
        pin_to(order.processors)
    begin_ids_at(order.first_id)
    if order.setup is not None:
        _find(order.setup)(*order.setup_arguments)
    memory = SharedMemory(order.memory)
    return [_listener(each, memory, order.slot) for each in order.listeners]


def _listener(order: ListenerOrder, memory: SharedMemory, slot: int) -> SharedListener:
    if order.arguments is None:
        handler: Handler = import_handler(order.handler)
    else:
        handler = _find(order.handler)(*order.arguments)
    return SharedListener(order, handler, replace(order.options, access_rules=order.rules), memory, slot)


def _find(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return cast("Callable[..., Any]", reduce(getattr, name.split("."), import_module(module)))


def _tell_failure(pair: socket.socket, error: Exception) -> None:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, EsockdError):
        told = error
    else:
        told = ControlError(f"{type(error).__name__}: {error}", code="cannot_start")
    with suppress(OSError):  # the parent has ended
        pair.setblocking(True)
        for line in encode({"error": error_to_json(told)}):
            pair.sendall(line)


class _Source:
    def __init__(self, listeners: list[SharedListener]) -> None:
        self._listeners = listeners

    def listeners(self) -> Iterable[SharedListener]:
        return self._listeners


async def _serve(order: Order, listeners: list[SharedListener], pair: socket.socket) -> None:
    async with anyio.create_task_group() as task_group:
        for listener in listeners:
            await task_group.start(listener.run)
        pair.setblocking(False)
        pipe = Pipe(await SocketStream.from_socket(pair.dup()))
        task_group.start_soon(_obey, listeners)
        task_group.start_soon(_speak, listeners, pipe, f"worker-{order.number}")
        for listener in listeners:
            await listener.wait_closed()
        pipe.end()
        task_group.cancel_scope.cancel()


async def _speak(listeners: list[SharedListener], pipe: Pipe, name: str) -> None:
    instance = Instance(_Source(listeners), name)
    await Session(instance, UntoldChanges(), pipe, None, Pace(share=1.0), is_read_only=False).serve()
    if not pipe.draining:  # the parent has ended
        os.kill(os.getpid(), signal.SIGKILL)


async def _obey(listeners: list[SharedListener]) -> None:
    with anyio.open_signal_receiver(RETIRE) as signals:
        async for _ in signals:
            async with anyio.create_task_group() as task_group:
                for listener in listeners:
                    task_group.start_soon(listener.retire)


if __name__ == "__main__":
    sys.exit(main())
