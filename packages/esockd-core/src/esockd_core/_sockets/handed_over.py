"""Listening sockets that pass from a program to the one that takes its place, or were opened before their listener.

A descriptor belongs to a whole process, and so do these two lists: the addresses that are open in this process, and the
sockets that wait for the listener that asks for their address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The sockets of one address that were opened before, mostly by another program.

    Attributes:
        address: The address as it was asked for.
        shares: The descriptors, those of each worker apart; all in one where there are no workers.
        file: Device and inode of the file of a Unix socket; None if there is none.
        is_lent: Whether that program may still go on with them.
        is_own: Whether this program has opened them itself, with every option that they need.
    """

    address: str
    shares: tuple[tuple[int, ...], ...]
    file: tuple[int, int] | None = None
    is_lent: bool = False
    is_own: bool = False

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors."""
        return tuple(descriptor for share in self.shares for descriptor in share)

    def as_dict(self) -> dict[str, Any]:
        """It as JSON."""
        return {"address": self.address, "shares": self.shares, "file": self.file}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> HandedOver:
        """It from JSON, lent by the program that wrote that.

        Raises:
            ValueError: If that is something else.
        """
        try:
            file = given["file"]
            shares = tuple(tuple(map(int, share)) for share in given["shares"])
            identity = None if file is None else (int(file[0]), int(file[1]))
            return cls(str(given["address"]), shares, identity, is_lent=True)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"that says nothing of sockets: {given!r}") from error


class OpenAddress(Protocol):
    """What is open in this process; see `ListeningSockets`."""

    asked: str
    is_left: bool
    is_lent: bool

    @property
    def shares(self) -> Sequence[Sequence[socket.socket]]:
        """Its sockets, those of each worker apart."""
        ...

    @property
    def file_identity(self) -> tuple[int, int] | None:
        """Device and inode of its file."""
        ...


_open: Final[WeakSet[Any]] = WeakSet()
_waiting: Final[list[HandedOver]] = []


def note_open(opened: OpenAddress) -> None:
    """Note that an address is open in this process."""
    _open.add(opened)


def open_addresses() -> list[OpenAddress]:
    """What is open in this process, and not another one's already."""
    opened: Iterable[OpenAddress] = tuple(_open)
    return [each for each in opened if each.shares and each.shares[0][0].fileno() >= 0 and not each.is_left]


def describe(opened: OpenAddress) -> HandedOver:
    """What another program has to know of an open address."""
    shares = tuple(tuple(sock.fileno() for sock in share) for share in opened.shares)
    return HandedOver(opened.asked, shares, opened.file_identity)


def leave_open_addresses() -> None:
    """Leave every open address to another program: what is closed here from now on is still open there."""
    for each in open_addresses():
        each.is_left = True


def receive(handed: Iterable[HandedOver]) -> None:
    """Keep sockets that came with this process for the listeners that will ask for them."""
    for each in handed:
        for descriptor in each.descriptors:
            os.set_inheritable(descriptor, False)
        _waiting.append(each)


def keep(opened: OpenAddress) -> None:
    """Take the sockets of an open address from their objects, and keep them for the listener that will ask for them."""
    shares = tuple(tuple(sock.detach() for sock in share) for share in opened.shares)
    _waiting.append(HandedOver(opened.asked, shares, is_lent=opened.is_lent, is_own=True))


def take(address: str) -> HandedOver | None:
    """Sockets of an address that wait, for one listener; None if there are none."""
    found = next((each for each in _waiting if each.address == address), None)
    if found is not None:
        _waiting.remove(found)
    return found


def own_open_addresses() -> None:
    """Note that the program before goes on with no address any more: their queues and files are of this one alone."""
    for each in open_addresses():
        each.is_lent = False


def waiting_addresses() -> tuple[str, ...]:
    """The addresses of those that no listener has asked for yet."""
    return tuple(each.address for each in _waiting)


def close_waiting() -> None:
    """Close what no listener has asked for."""
    for each in _waiting:
        for descriptor in each.descriptors:
            os.close(descriptor)
    _waiting.clear()
