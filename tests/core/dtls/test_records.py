"""Records of DTLS, taken out of datagrams and packed into them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_core._dtls.records import MAX_RECORDS, is_affordable, pack_records, split_records


def record_of(body: bytes, kind: int = 23, epoch: int = 0) -> bytes:
    return bytes((kind,)) + b"\xfe\xfd" + epoch.to_bytes(2, "big") + bytes(6) + len(body).to_bytes(2, "big") + body


def fragment_of(kind: int, length: int, number: int, body: bytes = b"x") -> bytes:
    return (
        bytes((kind,))
        + length.to_bytes(3, "big")
        + number.to_bytes(2, "big")
        + bytes(3)
        + len(body).to_bytes(3, "big")
        + body
    )


records = st.lists(st.binary(max_size=60).map(record_of), max_size=12)


@given(records, st.binary(max_size=12))
def test_a_datagram_falls_into_its_records_and_the_rest_is_left(whole: list[bytes], rest: bytes) -> None:
    assert list(split_records(b"".join(whole) + rest)) == whole


@given(records, st.integers(73, 200))
def test_records_are_packed_in_order_into_datagrams_within_the_mtu(whole: list[bytes], mtu: int) -> None:
    datagrams = pack_records(b"".join(whole), mtu)
    assert b"".join(datagrams) == b"".join(whole)
    assert all(len(datagram) <= mtu for datagram in datagrams)
    for first, second in itertools.pairwise(datagrams):
        assert len(first) + len(next(split_records(second))) > mtu  # as few as hold them
    assert [record for datagram in datagrams for record in split_records(datagram)] == whole


def test_a_record_above_the_mtu_goes_alone() -> None:
    small, large = record_of(b"small"), record_of(bytes(500))
    assert pack_records(small + large + small, 100) == [small, large, small]


def test_a_datagram_of_many_records_is_read_up_to_a_bound() -> None:
    assert len(list(split_records(record_of(b"") * 5_000))) == MAX_RECORDS


@pytest.mark.parametrize(
    ("record", "takes_certificates", "is_so"),
    [
        (record_of(fragment_of(16, 100, 2), 22), False, True),
        (record_of(fragment_of(16, 2_561, 2), 22), False, False),
        (record_of(fragment_of(11, 30_000, 2), 22), True, True),
        (record_of(fragment_of(11, 30_000, 2), 22), False, False),
        (record_of(fragment_of(11, 32_769, 2), 22), True, False),
        (record_of(fragment_of(16, 100, 8), 22), False, False),
        (record_of(fragment_of(16, 100, 2) + fragment_of(15, 100_000, 3), 22), False, False),
        (record_of(fragment_of(16, 100, 2) + b"junk", 22), False, False),
        (record_of(b"", 22), False, True),
        (record_of(fragment_of(16, 90_000, 2), 22, epoch=1), False, True),
        (record_of(fragment_of(16, 90_000, 2), 23), False, True),
    ],
)
def test_messages_of_a_handshake_are_affordable_up_to_what_honest_ones_need(
    record: bytes, takes_certificates: bool, is_so: bool
) -> None:
    assert is_affordable(record, takes_certificates) is is_so


@given(st.binary(max_size=80))
def test_no_record_is_too_strange_to_be_judged(body: bytes) -> None:
    is_affordable(record_of(body, 22), takes_certificates=True)
