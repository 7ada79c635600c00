"""The compiled table of one family: every address lies in a span, and every span has the rank of the rule that wins.

The spans are kept in pages. A page never changes: a change of rules makes new pages for the addresses it touches and a
new table around them, so that a lookup in another thread sees the old table or the new one, and needs no lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, ClassVar, Final, Generic, Protocol, TypeVar, overload

from esockd_cidr._wide import WideArray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

GAP: Final = 0xFFFFFFFF
"""The rank of addresses in no network, after that of every rule and default."""

SPANS_A_PAGE: Final = 64  # a larger page is slower to search, a smaller one spends more memory on its header
GROWTH: Final = 4  # with this many times the spans they were laid out for, pages are laid out again


class IntSequence(Protocol):
    """What holds the bounds of pages: `range` or `WideArray`."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> Self: ...


class IntArray(IntSequence, Protocol):
    """What holds the starts of spans: `array` or `WideArray`."""

    def __add__(self, other: Self, /) -> Self: ...


Column = TypeVar("Column", bound=IntArray)


class Table(ABC, Generic[Column]):
    """The spans of one family, in pages; immutable.

    Attributes:
        bounds: The first address of each page, which is also the start of its first span.
        starts: For each page, where its spans start.
        ranks: For each page, the ranks of its spans.
    """

    __slots__ = ("_count", "_laid_out_for", "bounds", "ranks", "starts")
    width: ClassVar[int]

    def __init__(
        self, bounds: IntSequence, starts: list[Column], ranks: list[array[int]], count: int, laid_out_for: int
    ) -> None:
        self.bounds = bounds
        self.starts = starts
        self.ranks = ranks
        self._count = count
        self._laid_out_for = laid_out_for

    @classmethod
    def compile(cls, starts: list[int], ranks: list[int]) -> Self:
        """Lay out the spans of a whole family; the first starts at 0."""
        bounds = cls._layout(starts)
        start_pages, rank_pages = cls._cut(cls._column(starts), array("I", ranks), bounds)
        count = sum(map(len, rank_pages))
        return cls(bounds, start_pages, rank_pages, count, laid_out_for=max(count, SPANS_A_PAGE))

    def with_spans(self, starts: list[int], ranks: list[int], last: int) -> Self:
        """The table with other spans between the first start and the last address."""
        page, last_page = self._page_of(starts[0]), self._page_of(last)
        head, head_ranks = self.starts[page], self.ranks[page]
        tail, tail_ranks = self.starts[last_page], self.ranks[last_page]
        before, after = bisect_left(head, starts[0]), bisect_right(tail, last)
        if last + 1 < self._end_of(last_page):
            following = tail_ranks[after - 1]
            if after < len(tail) and tail[after] == last + 1:
                following = tail_ranks[after]
                after += 1
            if following != ranks[-1]:
                starts, ranks = [*starts, last + 1], [*ranks, following]
        if before and head_ranks[before - 1] == ranks[0]:
            starts, ranks = starts[1:], ranks[1:]
        new_starts, new_ranks = self._cut(
            head[:before] + self._column(starts) + tail[after:],
            head_ranks[:before] + array("I", ranks) + tail_ranks[after:],
            self.bounds[page : last_page + 1],
        )
        count = self._count + sum(map(len, new_ranks)) - sum(map(len, self.ranks[page : last_page + 1]))
        changed = type(self)(self.bounds, self.starts.copy(), self.ranks.copy(), count, self._laid_out_for)
        changed.starts[page : last_page + 1] = new_starts
        changed.ranks[page : last_page + 1] = new_ranks
        if count <= GROWTH * self._laid_out_for:
            return changed
        spans = list(changed.spans())
        return self.compile([start for start, _ in spans], [rank for _, rank in spans])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Start and rank of each span; neighbours differ in rank."""
        previous = -1
        for starts, ranks in zip(self.starts, self.ranks, strict=True):
            for at, rank in enumerate(ranks):
                if rank != previous:
                    yield starts[at], rank
                previous = rank

    @abstractmethod
    def rank(self, value: int) -> int:
        """The rank that wins at an address."""

    @abstractmethod
    def _page_of(self, value: int) -> int: ...

    @classmethod
    @abstractmethod
    def _layout(cls, starts: list[int]) -> IntSequence: ...

    @staticmethod
    @abstractmethod
    def _column(values: list[int]) -> Column: ...

    def _end_of(self, page: int) -> int:
        return self.bounds[page + 1] if page + 1 < len(self.bounds) else 1 << self.width

    @classmethod
    def _cut(cls, starts: Column, ranks: array[int], bounds: IntSequence) -> tuple[list[Column], list[array[int]]]:
        pages: list[Column] = []
        rank_pages: list[array[int]] = []
        begin = 0
        for number in range(len(bounds)):
            bound, last = bounds[number], number + 1 == len(bounds)
            end = len(starts) if last else bisect_left(starts, bounds[number + 1], begin)
            page, page_ranks = starts[begin:end], ranks[begin:end]
            if begin == end or starts[begin] != bound:  # a span reaches in from the page before
                page, page_ranks = cls._column([bound]) + page, ranks[begin - 1 : begin] + page_ranks
            pages.append(page)
            rank_pages.append(page_ranks)
            begin = end
        return pages, rank_pages


class TableV4(Table["array[int]"]):
    """IPv4: pages of equal width, found by the top bits of the address.

    Attributes:
        shift: How many bits of an address lie inside a page.
    """

    __slots__ = ("shift",)
    width = 32

    def __init__(
        self, bounds: IntSequence, starts: list[array[int]], ranks: list[array[int]], count: int, laid_out_for: int
    ) -> None:
        super().__init__(bounds, starts, ranks, count, laid_out_for)
        self.shift = 33 - len(bounds).bit_length()

    def rank(self, value: int) -> int:
        page = value >> self.shift
        return self.ranks[page][bisect_right(self.starts[page], value) - 1]

    def _page_of(self, value: int) -> int:
        return value >> self.shift

    @classmethod
    def _layout(cls, starts: list[int]) -> IntSequence:
        pages = 1 << (len(starts) // SPANS_A_PAGE).bit_length()
        return range(0, 1 << 32, (1 << 32) // pages)

    @staticmethod
    def _column(values: list[int]) -> array[int]:
        return array("I", values)


class TableV6(Table[WideArray]):
    """IPv6: pages with equal numbers of spans, because the addresses in use cluster in a few corners of the space."""

    __slots__ = ()
    width = 128
    bounds: WideArray

    def rank(self, value: int) -> int:
        page = self.bounds.find(value) - 1
        return self.ranks[page][self.starts[page].find(value) - 1]

    def _page_of(self, value: int) -> int:
        return self.bounds.find(value) - 1

    @classmethod
    def _layout(cls, starts: list[int]) -> IntSequence:
        return WideArray.of(starts[:: 2 * SPANS_A_PAGE])

    @staticmethod
    def _column(values: list[int]) -> WideArray:
        return WideArray.of(values)
