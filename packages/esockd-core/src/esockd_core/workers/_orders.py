"""What a worker process is told when it starts and while it runs, and how that crosses from its parent."""

from __future__ import annotations

import io
import pickle
import signal
import struct
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from esockd_core._errors import InvalidOption
from esockd_core._options.listener import ListenerOptions
from esockd_core._options.plain import GROUPS

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from esockd_core._address import Address

RETIRE: Final = signal.SIGUSR2
"""Tells a worker to retire. It is not SIGTERM, which systemd sends to all processes of a unit."""

LENGTH: Final = struct.Struct("=Q")
LARGEST: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalOrder:
    """A rehearsal that the worker begins before it accepts.

    Attributes:
        rules: The rules in front of all others, as texts.
        changes: The changes of options as they were given.
        duration: The most seconds that it lasts.
    """

    rules: tuple[str, ...]
    changes: Mapping[str, Any]
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOrder:
    """One listener of a worker.

    Attributes:
        number: Its number among all that the program has opened.
        name: Its name.
        address: Its address.
        handler: Where to import the handler from, or a function that makes it.
        arguments: The arguments of that function; None if `handler` is the handler.
        options: Its options, without access rules.
        rules: The access rules, as text.
        memory: The descriptor of its shared memory.
        descriptors: The listening sockets.
        is_suspended: Whether it begins suspended.
        rehearsal: The rehearsal that is running; None if there is none.
    """

    number: int
    name: str
    address: Address
    handler: str
    arguments: tuple[Any, ...] | None
    options: ListenerOptions
    rules: tuple[str, ...]
    memory: int
    descriptors: tuple[int, ...]
    is_suspended: bool
    rehearsal: RehearsalOrder | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOrder:
    """Another handler and other options of a listener that is open.

    Attributes:
        number: The number of the listener.
        handler: Where to import the new handler from, or a function that makes it; None to keep the one in force.
        arguments: As for `ListenerOrder`.
        options: The options that change, whole groups of nested ones, without access rules.
        rules: The new access rules, as text; None to keep those in force.
    """

    number: int
    handler: str | None
    arguments: tuple[Any, ...] | None
    options: Mapping[str, Any]
    rules: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one worker is to do.

    Attributes:
        parent: The process id of its parent.
        number: The number of its share.
        slot: Its slot in the shared memory.
        first_id: The id of its first connection.
        worker_count: How many workers share the limits.
        listeners: Its listeners.
        backend: The backend, as `anyio.run` takes it.
        backend_options: Its options.
        setup: Where to import a function from that is called first; None for none.
        setup_arguments: Its arguments.
        processors: The processors that it may run on; empty for all.
    """

    parent: int
    number: int
    slot: int
    first_id: int
    worker_count: int
    listeners: tuple[ListenerOrder, ...]
    backend: str
    backend_options: dict[str, Any]
    setup: str | None
    setup_arguments: tuple[Any, ...]
    processors: tuple[int, ...]


class _Pickler(pickle.Pickler):
    """Options are made anew in the worker, which reads the files of certificates itself."""

    def reducer_override(self, value: object, /) -> Any:
        if isinstance(value, (ListenerOptions, *GROUPS)):
            made_of: Any = value
            return _make, (
                type(value),
                {each.name: getattr(made_of, each.name) for each in fields(made_of) if each.init},
            )
        return NotImplemented


def _make(kind: Any, values: dict[str, Any]) -> Any:
    return kind(**values)


def pack(order: object) -> bytes:
    """An order as bytes.

    Raises:
        InvalidOption: If something in it exists in this process only.
    """
    file = io.BytesIO()
    try:
        _Pickler(file).dump(order)
    except Exception as error:  # what an object raises when it is pickled is its own affair
        reason = f"it cannot be sent to a worker process: {error}"
        hint = "Use functions and objects of modules, and texts and numbers."
        raise InvalidOption(reason, option="options", hint=hint) from error
    return file.getvalue()


def unpack(data: bytes) -> Any:
    """An order of the parent of this process.

    Raises:
        Exception: What a module raises that the order needs.
    """
    return pickle.loads(data)  # noqa: S301 (of the parent, over a socket of its own)


def write_order(order: Order) -> bytes:
    """What a worker is told first as bytes, behind the places where this process finds modules.

    Raises:
        InvalidOption: If something in it exists in this process only.
    """
    data = pickle.dumps((sys.path, pack(order)))
    return LENGTH.pack(len(data)) + data


def read_order(sock: socket.socket) -> Order:
    """Receive an order on a blocking socket, from the parent of this process, and find modules where that does.

    Raises:
        EOFError: If the parent has ended.
        Exception: What a module raises that the order needs.
    """
    (length,) = LENGTH.unpack(_receive(sock, LENGTH.size))
    if length > LARGEST:
        raise EOFError("that is no order")
    sys_path, data = pickle.loads(_receive(sock, length))  # noqa: S301 (of the parent, over a socket of its own)
    sys.path[:] = sys_path  # before the rest, which has functions of the program's modules
    order: Order = unpack(data)
    return order


def _receive(sock: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        data = sock.recv(min(length - len(received), 1 << 20))
        if not data:
            raise EOFError("the parent has ended")
        received += data
    return bytes(received)
