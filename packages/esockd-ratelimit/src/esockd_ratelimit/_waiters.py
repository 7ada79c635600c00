"""The queue of a bucket: promises of tokens that are not there yet, in the order in which they were made.

A promise is charged when it is made. The bucket is in debt while one is open, so that no later caller can overtake, and
callers that find tokens need not look at the queue. A promise falls due when the debt up to and including it is paid. A
waiter is a promise that somebody sleeps on: only the first of them carries a timer, and whoever wakes settles all that
are due.

All numbers here are whole, in the bucket's units of time (see `_units`); there is no clock and no waiting here.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING

from ._errors import QueueFull

if TYPE_CHECKING:
    from anyio import Event


class Claim:
    """A promise of tokens.

    Attributes:
        tokens: How many.
        cost: The same, in units.
        full_at: Once due, the moment at which the bucket is full again after this promise; None while it is open.
        wakeup: The event its waiter sleeps on; None for a reservation.
        epoch: The units that the numbers are in.
    """

    __slots__ = ("cost", "epoch", "full_at", "tokens", "wakeup")

    def __init__(self, tokens: int, cost: int, wakeup: Event | None = None) -> None:
        self.tokens: int = tokens
        self.cost: int = cost
        self.full_at: int | None = None
        self.wakeup: Event | None = wakeup
        self.epoch: int = 0


class ClaimQueue:
    """The open promises of one bucket.

    Args:
        max_waiters: How many callers may sleep at once; None for no bound.
    """

    __slots__ = ("_end", "_epoch", "_open", "_open_cost", "_waiters", "max_waiters")

    def __init__(self, max_waiters: int | None) -> None:
        self.max_waiters = max_waiters
        self._open: OrderedDict[Claim, None] = OrderedDict()
        self._open_cost = 0
        self._end = 0  # when the bucket is full again after the last promise; valid while any is open
        self._waiters = 0
        self._epoch = 0  # goes up when the units change; a promise that was due before gives nothing back

    def __len__(self) -> int:
        """How many callers wait."""
        return self._waiters

    def push(self, claim: Claim, full_at: int) -> None:
        """Append a promise; with it charged, the bucket is full again at `full_at`. Settle before and after.

        Raises:
            QueueFull: If it is a waiter, and as many as allowed already wait.
        """
        if claim.wakeup is not None:
            if self._waiters == self.max_waiters:
                raise QueueFull(self._waiters)
            self._waiters += 1
        claim.epoch = self._epoch
        self._open[claim] = None
        self._open_cost += claim.cost
        self._end = full_at

    def settle(self, paid_until: int) -> None:
        """Close every promise that is due and wake its waiter, then the new first one, which carries the timer.

        Args:
            paid_until: Now plus the bucket's capacity; debts up to here are paid.
        """
        if not self._open:
            return
        full_at = self._end - self._open_cost
        first = self.first_waiter()
        while self._open:
            claim = next(iter(self._open))
            full_at += claim.cost
            if full_at > paid_until:
                break
            claim.full_at = full_at
            self._remove(claim)
        if first and first.full_at is not None:
            self._wake_first()

    def first_waiter(self) -> Claim | None:
        """The first promise with a waiter, which carries the timer."""
        return next((claim for claim in self._open if claim.wakeup), None) if self._waiters else None

    def due_at(self, claim: Claim) -> int:
        """The moment at which the debt up to and including this open promise is paid, plus the capacity."""
        ahead = takewhile(lambda other: other is not claim, self._open)
        return self._end - self._open_cost + sum(other.cost for other in ahead) + claim.cost

    def cancel(self, claim: Claim, now: int) -> int:
        """Take a promise back; return how many units the bucket gets back. Settle before."""
        if claim.full_at is None:
            was_first = claim is self.first_waiter() or claim.wakeup is None
            self._remove(claim)
            returned = claim.cost
            if was_first:
                self._wake_first()  # its turn came, or comes earlier
        else:
            returned = min(claim.cost, max(claim.full_at - now, 0)) if claim.epoch == self._epoch else 0
        claim.full_at = now  # nothing is left of it for a second cancel
        self._end -= returned
        return returned

    def move_up(self, units: int) -> None:
        """Somebody gave units back: waiters get their turn earlier."""
        self._end -= units
        self._wake_first()

    def convert(self, full_at: int, token: int) -> None:
        """Count in other units from now on; with open promises charged, the bucket is full at `full_at`."""
        self._epoch += 1
        self._open_cost = 0
        for claim in self._open:
            claim.epoch = self._epoch
            claim.cost = claim.tokens * token
            self._open_cost += claim.cost
        self._end = full_at
        self._wake_first()

    def _remove(self, claim: Claim) -> None:
        del self._open[claim]
        self._open_cost -= claim.cost
        if claim.wakeup:
            self._waiters -= 1
            claim.wakeup.set()

    def _wake_first(self) -> None:
        """Let the first waiter look at the clock again."""
        first = self.first_waiter()
        if first and first.wakeup:
            first.wakeup.set()
