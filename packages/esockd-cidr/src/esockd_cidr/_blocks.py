"""Keys in order, each with a value, in blocks: a change moves the entries of one block, and not all that follow."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence

Value = TypeVar("Value")

BLOCK: Final = 512  # entries; a block of more than twice as many is split


class Blocks(Generic[Value]):
    """Whole numbers in order, each with a value. A number may be there several times.

    Args:
        keys: The numbers, sorted. Blocks are sequences of the same type, and so are those of values.
        values: Their values.
    """

    __slots__ = ("_begins", "_count", "_keys", "_lasts", "_values")

    def __init__(self, keys: MutableSequence[int], values: MutableSequence[Value]) -> None:
        cuts = range(0, max(len(keys), 1), BLOCK)
        self._count = len(keys)
        self._keys = [keys[at : at + BLOCK] for at in cuts]
        self._values = [values[at : at + BLOCK] for at in cuts]
        self._lasts = [block[-1] if block else 0 for block in self._keys]
        self._begins: list[int] | None = None  # the position of each block's first entry, while nothing has changed

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> list[int]:
        """All keys."""
        return list(chain.from_iterable(self._keys))

    @property
    def values(self) -> list[Value]:
        """All values, in the order of their keys."""
        return list(chain.from_iterable(self._values))

    def between(self, first: int, last: int) -> Iterator[Value]:
        """The values of all keys from `first` to `last`."""
        block = bisect_left(self._lasts, first)
        begin = bisect_left(self._keys[block], first) if block < len(self._keys) else 0
        while block < len(self._keys):
            keys = self._keys[block]
            end = bisect_right(keys, last, begin)
            yield from self._values[block][begin:end]
            if end < len(keys):
                break
            block, begin = block + 1, 0

    def value_of(self, key: int) -> Value:
        """The value of a key that is there once."""
        block = bisect_left(self._lasts, key)
        return self._values[block][bisect_left(self._keys[block], key)]

    def find(self, key: int) -> tuple[int, Value]:
        """The position, from 0, and the value of a key that is there once."""
        block = bisect_left(self._lasts, key)
        at = bisect_left(self._keys[block], key)
        return self._positions()[block] + at, self._values[block][at]

    def key_at(self, position: int) -> int:
        """The key at a position, from 0."""
        begins = self._positions()
        block = bisect_right(begins, position) - 1
        return self._keys[block][position - begins[block]]

    def insert(self, key: int, value: Value) -> None:
        """Insert an entry."""
        block = min(bisect_left(self._lasts, key), len(self._lasts) - 1)
        keys, values = self._keys[block], self._values[block]
        at = bisect_left(keys, key)
        keys.insert(at, key)
        values.insert(at, value)
        self._lasts[block] = keys[-1]
        if len(keys) > 2 * BLOCK:
            self._keys[block : block + 1] = keys[:BLOCK], keys[BLOCK:]
            self._values[block : block + 1] = values[:BLOCK], values[BLOCK:]
            self._lasts.insert(block, keys[BLOCK - 1])
        self._count += 1
        self._begins = None

    def remove(self, key: int, value: Value) -> None:
        """Remove an entry that is there."""
        block = bisect_left(self._lasts, key)
        at = bisect_left(self._keys[block], key)
        while self._values[block][at] != value:
            at += 1
            if at == len(self._keys[block]):
                block, at = block + 1, 0
        keys, values = self._keys[block], self._values[block]
        del keys[at], values[at]
        if keys:
            self._lasts[block] = keys[-1]
        elif len(self._keys) > 1:
            del self._keys[block], self._values[block], self._lasts[block]
        self._count -= 1
        self._begins = None

    def _positions(self) -> list[int]:
        if self._begins is None:
            self._begins = [0, *accumulate(map(len, self._keys[:-1]))]
        return self._begins
