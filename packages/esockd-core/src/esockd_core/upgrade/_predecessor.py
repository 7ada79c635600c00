"""The program before this one, as the new program sees it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketStream

from esockd_core._errors import EsockdError
from esockd_core._remote.errors import ControlError
from esockd_core._sockets.handed_over import HandedOver, close_waiting, own_open_addresses, receive
from esockd_core.upgrade._words import ANSWER_S, DONE, GO, LONGEST, READY, VARIABLE, Lines, read, write

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class Predecessor:
    """The program that this one takes the place of. Get it from `find_predecessor`.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, pair: socket.socket, pid: int) -> None:
        self.pid = pid
        self._pair = pair
        self._stream: SocketStream | None = None

    async def ready(self) -> None:
        """Say that the listeners are open, and return when this program is to accept.

        If the program before has died meanwhile, this one goes on without it.

        Raises:
            ControlError: If it does not answer for 30 seconds. It has its clients, and this program should end.
        """
        self._pair.setblocking(False)
        self._stream = await SocketStream.from_socket(self._pair)
        try:
            with suppress(anyio.BrokenResourceError), anyio.fail_after(ANSWER_S):
                await self._stream.send(write(says=READY))
                message = await Lines(self._stream).next()
                if message is not None and message.get("says") != GO:
                    raise ControlError(f"the program before (pid {self.pid}) says {message}", code="cannot_upgrade")
        except TimeoutError as error:
            text = f"the program before (pid {self.pid}) has not answered for {ANSWER_S:g} seconds"
            raise ControlError(text, code="cannot_upgrade") from error

    async def took_over(self) -> None:
        """Say that this program accepts, and return when the one before accepts no more.

        Sockets that no listener of this program has asked for are closed.
        """
        close_waiting()
        if self._stream is None:
            raise RuntimeError("say that this program is ready first")
        with anyio.move_on_after(ANSWER_S), suppress(anyio.BrokenResourceError):
            await self._stream.send(write(says=DONE))
            own_open_addresses()
            await Lines(self._stream).next()
        own_open_addresses()  # also if the program before is gone
        await anyio.aclose_forcefully(self._stream)

    def fail(self, why: str) -> None:
        """Say why this program cannot start. Call it before it ends; the program before goes on.

        Args:
            why: One line.
        """
        with suppress(OSError):
            self._pair.setblocking(True)
            self._pair.settimeout(1.0)
            self._pair.sendall(write(error=why))
            self._pair.close()


def find_predecessor(environ: MutableMapping[str, str] = os.environ) -> Predecessor | None:
    """The program that started this one to take its place, and whose sockets it has brought along.

    Call it before any listener is opened. Listeners then take the sockets that the one before had for their address.

    Args:
        environ: Names the descriptor that came with this process; that is taken out.

    Returns:
        The program before; None if this one was started by somebody else.

    Raises:
        EsockdError: If what came with this process cannot be used.
    """
    given = environ.pop(VARIABLE, None)
    if given is None:
        return None
    try:
        pair = socket.socket(fileno=int(given))
        pair.settimeout(ANSWER_S)
        os.set_inheritable(pair.fileno(), False)
        line = bytearray()
        while not line.endswith(b"\n") and len(line) < LONGEST:
            line += (data := pair.recv(1 << 16))
            if not data:
                raise EOFError("it has ended")  # noqa: TRY301 (told as all others)
        message = read(bytes(line)) or {}
        receive([HandedOver.from_dict(each) for each in message["sockets"]])
        return Predecessor(pair, int(message["pid"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise EsockdError(f"{VARIABLE} is {given!r}, and the program before cannot be understood: {error}") from error
