"""Durations in buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_core._stats.histogram import BOUNDS_S, LIFETIME_BOUNDS_S, Durations, Histogram


def test_a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram()
    for duration_s in (0.0, 0.0001, 0.00011, 11.0):
        histogram.note(duration_s)
    durations = histogram.snapshot()
    assert (durations.counts[0], durations.counts[1], durations.counts[-1]) == (2, 1, 1)
    assert durations.count == 4
    assert durations.total == pytest.approx(11.00021)


def test_a_quantile_is_the_bound_that_so_many_did_not_exceed() -> None:
    histogram = Histogram()
    histogram.note_several(0.0004, 99)
    histogram.note(99.0)
    durations = histogram.snapshot()
    assert durations.quantile(0.5) == 0.0005
    assert durations.quantile(0.99) == 0.0005
    assert durations.quantile(1.0) == math.inf


def test_without_durations_there_is_no_quantile() -> None:
    assert Histogram().snapshot().quantile(0.5) is None


@pytest.mark.parametrize("part", [-0.1, 1.1])
def test_a_part_outside_of_0_to_1_is_refused(part: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Histogram().snapshot().quantile(part)


@pytest.mark.parametrize("bounds_s", [BOUNDS_S, LIFETIME_BOUNDS_S])
def test_bounds_grow_so_that_the_search_finds_the_bucket(bounds_s: tuple[float, ...]) -> None:
    assert list(bounds_s) == sorted(set(bounds_s))


def test_a_histogram_has_the_buckets_that_it_was_made_with() -> None:
    histogram = Histogram((1.0, 60.0))
    for duration_s in (0.5, 59.0, 61.0):
        histogram.note(duration_s)
    assert histogram.snapshot() == Durations((1, 1, 1), 120.5, (1.0, 60.0))


def test_what_is_noted_for_later_counts_once_and_never_below_zero() -> None:
    histogram = Histogram((1.0, 60.0))
    histogram.note_later(-5.0)  # by a clock that was set back
    histogram.note_later(59.0)
    histogram.settle()
    histogram.settle()
    histogram.note_later(61.0)
    assert histogram.snapshot() == Durations((1, 1, 1), 120.0, (1.0, 60.0))


@given(
    st.lists(
        st.lists(st.floats(-1, 100) | st.sampled_from([0.0, 1.0, 60.0])),
        max_size=3,
    )
)
def test_durations_kept_for_later_count_as_those_noted_at_once(batches: list[list[float]]) -> None:
    later, at_once = Histogram((1.0, 60.0)), Histogram((1.0, 60.0))
    for batch in batches:
        for duration_s in batch:
            later.note_later(duration_s)
            at_once.note(max(duration_s, 0.0))
        later.settle()
    found, expected = later.snapshot(), at_once.snapshot()
    assert found.counts == expected.counts
    assert found.total == pytest.approx(expected.total)
