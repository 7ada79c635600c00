"""Who comes most often, counted in bounded space, against counts without a bound."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from esockd_core._stats.top_sources import KEPT, TopSources, source_text


def test_few_sources_are_counted_exactly_and_the_first_is_the_most_frequent() -> None:
    sources = TopSources()
    for host in ["10.0.0.1", "10.0.0.2", "10.0.0.2"]:
        sources.count(host)
    assert sources.top(2) == [("10.0.0.2", 2), ("10.0.0.1", 1)]
    assert sources.uncertainty == 0


def test_addresses_of_one_ipv6_subscriber_count_as_one_source() -> None:
    sources = TopSources()
    for host in ["2001:db8::1", "2001:db8::ffff", "unix:"]:
        sources.count(host)
    assert [(source_text(source), count) for source, count in sources.top(9)] == [("2001:db8::/64", 2), ("unix:", 1)]


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(1, 4))
def test_a_count_is_never_too_high_and_too_low_by_no_more_than_it_says(frequent: list[int], waves: int) -> None:
    sources, exact = TopSources(), Counter[str]()
    hosts = [f"192.0.2.{number}" for number in frequent] * 40
    for wave in range(waves):
        hosts += [f"10.{wave}.{number >> 8}.{number & 255}" for number in range(KEPT)]
    for host in hosts:
        sources.count(host)
        exact[host] += 1
    kept = {source_text(source): count for source, count in sources.top(4 * KEPT)}
    assert len(kept) <= 2 * KEPT
    assert sources.uncertainty <= len(hosts) / KEPT
    for host, count in exact.items():
        assert count - sources.uncertainty <= kept.get(host, 0) <= count
