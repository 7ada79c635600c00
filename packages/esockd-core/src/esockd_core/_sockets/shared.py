"""Sockets of one address for several processes: as many SO_REUSEPORT sockets as there are processes, or one for all."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from esockd_core._errors import CannotBind
from esockd_core._platform.open_files import hint_of
from esockd_core._platform.steering import IS_SUPPORTED, steer
from esockd_core._sockets.internet import Endpoint, SockAddr, bind_endpoint
from esockd_core._sockets.opening import ListeningSockets, open_sockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_core._address import Address
    from esockd_core._options.tcp import TcpOptions
    from esockd_core._options.unix import UnixOptions

OF_ANOTHER_USER: Final = (
    "The kernel gives more sockets to the user alone who opened the first ones, as root may have: "
    "stop the program, and start it anew with this number."
)


class SharedSockets:
    """The open sockets of one address.

    They stay open until the listener closes: closing one of an SO_REUSEPORT group resets the clients in its queue and
    gives its index to another.

    Attributes:
        opened: The same sockets, those of all processes.
        port: The port that all share; None for a Unix socket.
        shares: The sockets of each process.
    """

    def __init__(
        self, opened: ListeningSockets, shares: Sequence[tuple[socket.socket, ...]], *, is_group: bool
    ) -> None:
        self.opened: ListeningSockets = opened
        self.port: int | None = opened.port
        self._is_group = is_group
        self._is_steered = is_group
        self.shares: tuple[tuple[socket.socket, ...], ...] = tuple(shares)
        for sock in self.all_sockets():
            sock.setblocking(False)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The bound addresses."""
        return self.opened.addresses

    def all_sockets(self) -> tuple[socket.socket, ...]:
        """Each socket that is open, once."""
        return tuple(dict.fromkeys(sock for share in self.shares for sock in share if sock.fileno() >= 0))

    @property
    def is_left(self) -> bool:
        """Whether another program has taken over the address."""
        return self.opened.is_left

    def steer(self, shares: Sequence[int]) -> None:
        """Let new clients go to some shares only, or to all if none is given.

        Raises:
            OSError: If the kernel refuses.
        """
        if self._is_steered and not self.opened.is_left:
            in_group = range(len(self.opened.shares))
            chosen = [index for index in in_group if index % len(self.shares) in shares]
            for sock in self.opened.shares[0]:
                steer(sock, None if len(shares) in (0, len(self.shares)) else chosen)

    def close_share(self, number: int) -> None:
        """Close the sockets of one process, which accepts no more, unless others have the same ones.

        New clients go to the processes whose sockets are open, and none is steered any more: other indexes hold.
        """
        if not self._is_group:
            return
        with suppress(OSError):
            self.steer(())
        self._is_steered = False
        for sock in self.shares[number]:
            sock.close()
        self.opened.shares = tuple(share for share in self.opened.shares if share[0].fileno() >= 0)

    def give_up(self) -> None:
        """Close every socket, also the copies that a process has which does not answer, if they are this program's."""
        if self.opened.is_own:
            for sock in self.all_sockets():
                with suppress(OSError):  # not on every system
                    sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Remove a Unix path if it is still ours, and close every socket."""
        self.opened.close()
        for sock in self.all_sockets():
            sock.close()


async def open_shared_sockets(address: Address, worker_count: int, tcp: TcpOptions, unix: UnixOptions) -> SharedSockets:
    """Open the sockets of a stream address for a number of workers.

    Internet addresses on Linux get sockets for each process. Nobody else may have the address unless `reuse_port` says
    so. Unix sockets, those that somebody else opened, and those of other systems are shared: every process accepts on
    the same ones.

    Raises:
        AddressInUse: If somebody else listens there.
        CannotBind: If the address cannot be opened.
        InvalidOption: If an option does not apply to the address.
    """
    opened = await open_sockets(address, tcp, unix)
    is_group = IS_SUPPORTED and worker_count > 1 and address.kind in ("loopback", "everywhere", "host")
    if not is_group:
        return SharedSockets(opened, [opened.sockets] * worker_count, is_group=False)
    group = replace(tcp, reuse_port=True)
    with ExitStack() as stack:
        stack.callback(opened.close)
        shares = [*opened.shares]
        try:
            for sock in shares[0]:
                # Bound without it, so that it is known that nobody else has the address.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
            for _ in range(worker_count - len(shares)):
                share: list[socket.socket] = []
                for sock in shares[0]:
                    endpoint = Endpoint(socket.AddressFamily(sock.family), cast("SockAddr", sock.getsockname()))
                    share.append(stack.enter_context(bind_endpoint(endpoint, group, None)))
                    share[-1].listen(tcp.backlog)
                shares.append(tuple(share))
        except OSError as error:
            where = " and ".join(opened.addresses)
            why = f"cannot listen on {where} for {worker_count} processes: {error.strerror}"
            is_of_another = opened.is_lent and error.errno in (errno.EADDRINUSE, errno.EACCES)
            hint = OF_ANOTHER_USER if is_of_another else hint_of(error.errno)
            raise CannotBind(error.errno, why, hint) from error
        stack.pop_all()
    opened.shares = tuple(shares)
    # Sockets of a program with more workers, before this one, are shared out: closing one would lose its queue.
    by_process = [
        tuple(sock for share in shares[number::worker_count] for sock in share) for number in range(worker_count)
    ]
    return SharedSockets(opened, by_process, is_group=True)
