"""A network that loses, doubles and reorders datagrams, in the same way each time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from esockd_core._errors import InvalidOption


@dataclass
class Impairment:
    """Decides what becomes of datagrams on their way. The same seed decides the same.

    Args:
        loss: The share that is lost, 0 to 1.
        duplicate: The share that comes twice.
        reorder: The share that is overtaken by the next one.
        seed: Of the random numbers.

    Attributes:
        lost: How many were lost so far.
        duplicated: How many came twice.
        reordered: How many were overtaken.

    Raises:
        InvalidOption: If a share is not a number from 0 to 1.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    seed: int = 0
    lost: int = field(default=0, init=False)
    duplicated: int = field(default=0, init=False)
    reordered: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidOption("it takes a share from 0 to 1", option=name, value=getattr(self, name))
        self._dice = random.Random(self.seed)  # noqa: S311 (nothing is to be kept secret)
        self._held: dict[object, list[bytes]] = {}

    def passes(self, datagram: bytes, way: object = None) -> list[bytes]:
        """What arrives when this datagram is sent: nothing, itself, twice, or with one that was held back before.

        Args:
            datagram: What is sent.
            way: From where to where; datagrams overtake only those on the same way.
        """
        if self._dice.random() < self.loss:
            self.lost += 1
            return []
        arriving = [datagram]
        if self._dice.random() < self.duplicate:
            self.duplicated += 1
            arriving.append(datagram)
        if way not in self._held and self._dice.random() < self.reorder:
            self.reordered += 1
            self._held[way] = arriving
            return []
        return arriving + self._held.pop(way, [])
