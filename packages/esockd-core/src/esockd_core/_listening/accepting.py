"""The part of a listener that stops and starts accepting, and exchanges its listening sockets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from esockd_core._address import parse_address
from esockd_core._connection.entrance import plan_entrance
from esockd_core._errors import InvalidOption, ListenerClosed
from esockd_core._listening.audited import audited
from esockd_core._listening.rehearsing import Rehearsing
from esockd_core._sockets.internet import require_permission

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from esockd_core._address import Address
    from esockd_core._sockets.opening import ListeningSockets


class Accepting(Rehearsing):
    """Suspends, resumes and reopens."""

    _claim_address: Callable[[Address], AbstractContextManager[None]]

    _begins_suspended: bool

    def _begin(self) -> None:
        if self._begins_suspended:
            self._state = "suspended"
        else:
            self._accept()

    def _accept(self) -> None:
        self._intake.start()
        self._state = "running"

    @audited
    async def suspend(self) -> None:
        """Stop accepting. Open connections go on; new clients wait in the kernel's queue.

        Raises:
            ListenerClosed: If the listener is not open, or is draining.
        """
        async with self._changing:
            self._require_open()
            self._state = "suspended"  # first: who is cancelled while it waits must find a listener that can resume
            await self._intake.stop()

    @audited
    async def resume(self) -> None:
        """Accept again.

        Raises:
            ListenerClosed: If the listener is not open, is draining, or has lost its address in `reopen`.
        """
        async with self._changing:
            self._require_open()
            if not self._intake.is_open:
                raise ListenerClosed(f"listener {self.name} could not be reopened: try `reopen` again")
            if self._state == "suspended":
                self._accept()

    @audited
    async def reopen(self, address: object = None) -> None:
        """Close the listening sockets and open new ones; connections stay open and counters go on.

        Clients in the kernel's queue are served first. A suspended listener stays suspended.

        Args:
            address: Where to listen from now on; None is where it listens already, with port 0 on the same port.

        Raises:
            ListenerClosed: If the listener is not open, or is draining.
            InvalidAddress: If the address is not valid.
            InvalidOption: If only one of address and listener is for TLS.
            AlreadyOpen: If its `Server` has another listener of that name at the new address.
            AddressInUse: If somebody else listens there. The listener goes on at its old address. If it was to be
                reopened at that one, it is suspended until it is reopened.
            CannotBind: If the address cannot be opened, with the same consequences.
        """
        async with self._changing:
            self._require_open()
            wanted = self.address if address is None else parse_address(address)
            if wanted == self.address:
                await self._replace_sockets(wanted, None)
                return
            if wanted.is_datagram != self.address.is_datagram:
                reason = f"{self.address} and {wanted} are of different kinds: open a new listener"
                raise InvalidOption(reason, option="address", value=str(wanted))
            plan_entrance(wanted, self.options)
            with self._claim_address(wanted):
                await self._replace_sockets(wanted, await self._intake.open_sockets(wanted))

    async def _replace_sockets(self, address: Address, fresh: ListeningSockets | None) -> None:
        place = address
        if fresh is None:
            if address.port == 0:
                place = replace(address, port=self._intake.last_port or 0)
            await require_permission(place)
        was_running, self._state = self._state == "running", "suspended"
        try:
            await self._intake.replace(place, fresh)
            self.address = address
            self._intake.note_asked(address)
        finally:
            # Cancelled before the old sockets were closed, it goes on with them.
            if was_running and self._intake.is_open:
                self._accept()

    def _require_open(self) -> None:
        if self._state not in ("running", "suspended"):
            raise ListenerClosed(f"listener {self.name} is {self._state}: open a new one")
