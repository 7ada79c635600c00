"""The compiled table of one family: every address lies in a span, and every span has the rank of the rule that wins.

The spans are kept in pages. A page never changes. A change of rules within one page puts another in its place, which
takes one step; a larger one makes a new table. A lookup in another thread thus sees the rules before the change or
after it, and needs no lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, ClassVar, Final, Generic, Protocol, TypeVar, overload

from esockd_cidr._wide import WideArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

GAP: Final = 0xFFFFFFFF
"""The rank of addresses in no network, after that of every rule and default."""

SPANS_A_PAGE: Final = 32  # a larger page is slower to search, a smaller one spends more memory on its header
GROWTH: Final = 4  # with this many times the spans they were laid out for, pages are laid out again


class IntArray(Protocol):
    """What holds the starts of spans: `array` or `WideArray`."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> Self: ...
    def __add__(self, other: Self, /) -> Self: ...


Column = TypeVar("Column", bound=IntArray)
Page = TypeVar("Page")


class Table(ABC, Generic[Column, Page]):
    """The spans of one family, in pages.

    Attributes:
        bounds: The first address of each page, which is also the start of its first span.
        pages: The pages: where spans start, and their ranks.
    """

    __slots__ = ("_count", "_laid_out_for", "bounds", "pages")
    width: ClassVar[int]

    def __init__(self, bounds: Sequence[int], pages: list[Page], count: int, laid_out_for: int) -> None:
        self.bounds = bounds
        self.pages = pages
        self._count = count
        self._laid_out_for = laid_out_for

    @classmethod
    def compile(cls, starts: list[int], ranks: list[int]) -> Self:
        """Lay out the spans of a whole family; the first starts at 0."""
        bounds = cls._layout(starts)
        pages = cls._cut(cls._column(starts), array("I", ranks), bounds)
        count = cls._spans_in(pages)
        return cls(bounds, pages, count, laid_out_for=max(count, SPANS_A_PAGE))

    def with_spans(self, starts: list[int], ranks: list[int], last: int, *, in_place: bool) -> Self:
        """The table with other spans between the first start and the last address.

        Args:
            starts: Where each of them starts.
            ranks: Their ranks.
            last: The last address.
            in_place: Whether this table may be changed and returned, where that takes one step.
        """
        page, last_page = self._page_of(starts[0]), self._page_of(last)
        (head, head_ranks), (tail, tail_ranks) = self._unpack(self.pages[page]), self._unpack(self.pages[last_page])
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
        pages = self._cut(
            head[:before] + self._column(starts) + tail[after:],
            head_ranks[:before] + array("I", ranks) + tail_ranks[after:],
            self.bounds[page : last_page + 1],
        )
        count = self._count + self._spans_in(pages) - self._spans_in(self.pages[page : last_page + 1])
        fits = count <= GROWTH * self._laid_out_for
        if fits and in_place and page == last_page:
            self.pages[page] = pages[0]
            self._count = count
            return self
        changed = type(self)(self.bounds, self.pages.copy(), count, self._laid_out_for)
        changed.pages[page : last_page + 1] = pages
        if fits:
            return changed
        spans = list(changed.spans())
        return self.compile([start for start, _ in spans], [rank for _, rank in spans])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Start and rank of each span; neighbours differ in rank."""
        previous = -1
        for starts, ranks in map(self._unpack, self.pages):
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
    def _layout(cls, starts: list[int]) -> Sequence[int]: ...

    @staticmethod
    @abstractmethod
    def _column(values: list[int]) -> Column: ...

    @staticmethod
    @abstractmethod
    def _pack(starts: Column, ranks: array[int]) -> Page: ...

    @staticmethod
    @abstractmethod
    def _unpack(page: Page) -> tuple[Column, array[int]]: ...

    @classmethod
    def _spans_in(cls, pages: list[Page]) -> int:
        return sum(len(cls._unpack(page)[1]) for page in pages)

    def _end_of(self, page: int) -> int:
        return self.bounds[page + 1] if page + 1 < len(self.bounds) else 1 << self.width

    @classmethod
    def _cut(cls, starts: Column, ranks: array[int], bounds: Sequence[int]) -> list[Page]:
        pages: list[Page] = []
        begin = 0
        for number in range(len(bounds)):
            bound, last = bounds[number], number + 1 == len(bounds)
            end = len(starts) if last else bisect_left(starts, bounds[number + 1], begin)
            page, page_ranks = starts[begin:end], ranks[begin:end]
            if begin == end or starts[begin] != bound:  # a span reaches in from the page before
                page, page_ranks = cls._column([bound]) + page, ranks[begin - 1 : begin] + page_ranks
            pages.append(cls._pack(page, page_ranks))
            begin = end
        return pages


class TableV4(Table["array[int]", "array[int]"]):
    """IPv4: pages of equal width, found by the top bits of the address.

    A page is one array: the starts of its spans, then their ranks from last to first. The rank of the n-th span is thus
    the n-th from the end, and a lookup has one array to fetch, where memory is what it waits for.

    Attributes:
        shift: How many bits of an address lie inside a page.
    """

    __slots__ = ("shift",)
    width = 32

    def __init__(self, bounds: Sequence[int], pages: list[array[int]], count: int, laid_out_for: int) -> None:
        super().__init__(bounds, pages, count, laid_out_for)
        self.shift = 33 - len(bounds).bit_length()

    def rank(self, value: int) -> int:
        page = self.pages[value >> self.shift]
        return page[-bisect_right(page, value, 0, len(page) >> 1)]

    def _page_of(self, value: int) -> int:
        return value >> self.shift

    @classmethod
    def _layout(cls, starts: list[int]) -> Sequence[int]:
        pages = 1 << (len(starts) // SPANS_A_PAGE).bit_length()
        return range(0, 1 << 32, (1 << 32) // pages)

    @staticmethod
    def _column(values: list[int]) -> array[int]:
        return array("I", values)

    @staticmethod
    def _pack(starts: array[int], ranks: array[int]) -> array[int]:
        return starts + ranks[::-1]

    @staticmethod
    def _unpack(page: array[int]) -> tuple[array[int], array[int]]:
        half = len(page) >> 1
        return page[:half], page[: half - 1 : -1]


class TableV6(Table[WideArray, "tuple[WideArray, array[int]]"]):
    """IPv6: pages with equal numbers of spans, because the addresses in use cluster in a few corners of the space.

    A page is a pair: the starts of its spans, and their ranks.
    """

    __slots__ = ()
    width = 128

    def rank(self, value: int) -> int:
        starts, ranks = self.pages[bisect_right(self.bounds, value) - 1]
        return ranks[starts.find(value) - 1]

    def _page_of(self, value: int) -> int:
        return bisect_right(self.bounds, value) - 1

    @classmethod
    def _layout(cls, starts: list[int]) -> Sequence[int]:
        return starts[:: 4 * SPANS_A_PAGE]

    @staticmethod
    def _column(values: list[int]) -> WideArray:
        return WideArray.of(values)

    @staticmethod
    def _pack(starts: WideArray, ranks: array[int]) -> tuple[WideArray, array[int]]:
        return starts, ranks

    @staticmethod
    def _unpack(page: tuple[WideArray, array[int]]) -> tuple[WideArray, array[int]]:
        return page
