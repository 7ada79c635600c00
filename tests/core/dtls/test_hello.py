"""The hello of a client, and the cookie that it has to show: strict, without state, and never an amplifier."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.dtls.peers import ADDRESS, Client

from esockd_core._dtls.cookies import SECRET_MS, Cookies
from esockd_core._dtls.doorkeeper import DtlsDoorkeeper
from esockd_core._dtls.hello import ClientHello, ask_for_cookie, is_hello, read_hello

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = bytes(range(32))
SECRET_S = SECRET_MS / 1_000
SMALLEST_BODY = b"\xfe\xfd" + RANDOM + b"\0" + b"\0" + b"\0\2\xc0\x2c" + b"\1\0"


def hello_of(body: bytes, number: int = 0, behind: bytes = b"") -> bytes:
    length = len(body).to_bytes(3, "big")
    message = b"\1" + length + number.to_bytes(2, "big") + bytes(3) + length + body
    return b"\x16\xfe\xff" + bytes(7) + b"\5" + len(message).to_bytes(2, "big") + message + behind


def with_cookie(cookie: bytes, body: bytes = SMALLEST_BODY) -> bytes:
    return hello_of(body[:35] + bytes((len(cookie),)) + cookie + body[36:], 1)


def read(datagram: bytes) -> ClientHello:
    hello = read_hello(datagram)
    assert hello is not None
    return hello


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_the_hello_of_openssl_is_read() -> None:
    [datagram] = Client(server_name="localhost", alpn=("coap",)).hello()
    assert is_hello(datagram)
    hello = read(datagram)
    assert (hello.record, hello.cookie, hello.number) == (datagram, b"", 0)


def test_what_comes_behind_the_hello_is_left_out() -> None:
    assert read(hello_of(SMALLEST_BODY, behind=b"more")).record == hello_of(SMALLEST_BODY)


def test_the_second_hello_has_the_same_parameters_as_the_first() -> None:
    first, second = read(hello_of(SMALLEST_BODY)), read(with_cookie(b"c" * 32))
    assert second.cookie == b"c" * 32
    assert second.parameters == first.parameters == SMALLEST_BODY[:35] + SMALLEST_BODY[36:]


def changed(at: int, new: bytes) -> bytes:
    datagram = hello_of(SMALLEST_BODY)
    return datagram[:at] + new + datagram[at + len(new) :]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x16",
        changed(0, b"\x17"),
        changed(1, b"\x03"),
        changed(3, b"\0\1"),
        changed(11, b"\0\0"),
        changed(11, b"\xff\xff"),
        changed(13, b"\2"),
        changed(14, b"\0\0\0"),
        changed(19, b"\0\0\1"),
        changed(22, b"\0\0\1"),
        changed(25, b"\3"),
        hello_of(SMALLEST_BODY)[:-1],
        hello_of(SMALLEST_BODY[:-1]),
        hello_of(SMALLEST_BODY + b"\0"),
        hello_of(SMALLEST_BODY + b"\0\1"),
        hello_of(SMALLEST_BODY + b"\0\0x"),
        hello_of(SMALLEST_BODY[:34] + b"\x21" + bytes(33) + SMALLEST_BODY[35:]),
        hello_of(SMALLEST_BODY[:36] + b"\0\0" + b"\1\0"),
        hello_of(SMALLEST_BODY[:36] + b"\0\3abc" + b"\1\0"),
        hello_of(SMALLEST_BODY[:40] + b"\0"),
        hello_of(SMALLEST_BODY[:35] + b"\xff"),
        hello_of(b""),
    ],
)
def test_what_is_not_a_whole_hello_is_not_read(datagram: bytes) -> None:
    assert read_hello(datagram) is None
    assert DtlsDoorkeeper().answer(datagram, ADDRESS) == b""


def test_a_hello_with_extensions_of_just_the_length_left_is_read() -> None:
    assert read_hello(hello_of(SMALLEST_BODY + b"\0\4\0\x23\0\0")) is not None


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange(junk: bytes) -> None:
    keeper = DtlsDoorkeeper()
    for datagram in (junk, b"\x16\xfe\xff" + bytes(8) + junk, hello_of(junk), hello_of(SMALLEST_BODY[:34] + junk)):
        answer = keeper.answer(datagram, ADDRESS)
        assert answer is not None
        assert len(answer) < max(len(datagram), 1)


@given(st.integers(0, 66), st.integers(0, 255))
def test_one_changed_byte_makes_no_amplifier(at: int, new: int) -> None:
    answer = DtlsDoorkeeper().answer(changed(at, bytes((new,))), ADDRESS)
    assert answer is not None
    assert len(answer) < 67


def test_the_question_is_shorter_than_the_shortest_hello() -> None:
    shortest = hello_of(SMALLEST_BODY)
    answer = DtlsDoorkeeper().answer(shortest, ADDRESS)
    assert answer is not None
    assert (len(shortest), len(answer)) == (67, 60)
    assert answer[3:11] == shortest[3:11]  # the client's own number (RFC 6347 section 4.2.1)


def asked(keeper: DtlsDoorkeeper, address: object = ADDRESS, body: bytes = SMALLEST_BODY) -> bytes:
    """The cookie that a client is asked for."""
    answer = keeper.answer(hello_of(body), address)
    assert answer
    return answer[28:]


def test_a_client_that_shows_its_cookie_is_let_in() -> None:
    keeper = DtlsDoorkeeper()
    assert keeper.answer(with_cookie(asked(keeper)), ADDRESS) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cookie: cookie[:-1],
        lambda cookie: cookie + b"\0",
        lambda cookie: bytes((cookie[0] ^ 1,)) + cookie[1:],
        lambda cookie: cookie[:-1] + bytes((cookie[-1] ^ 1,)),
        lambda cookie: b"",
        lambda cookie: b"\0\0\0",
        lambda cookie: bytes(32),
        lambda cookie: b"\xff" * 32,
    ],
)
def test_another_cookie_is_answered_with_the_question(spoil: Callable[[bytes], bytes]) -> None:
    keeper = DtlsDoorkeeper()
    answer = keeper.answer(with_cookie(spoil(asked(keeper))), ADDRESS)
    assert answer is not None
    assert len(answer) == 60


def test_a_cookie_is_good_for_its_address_and_its_hello_only() -> None:
    keeper = DtlsDoorkeeper()
    cookie = asked(keeper)
    assert keeper.answer(with_cookie(cookie), ("192.0.2.7", 41001)) is not None
    assert keeper.answer(with_cookie(cookie), ("192.0.2.8", 41000)) is not None
    other = SMALLEST_BODY.replace(RANDOM, RANDOM[::-1])
    assert keeper.answer(with_cookie(cookie, other), ADDRESS) is not None
    assert DtlsDoorkeeper().answer(with_cookie(cookie), ADDRESS) is not None


def test_only_the_second_hello_of_a_client_counts() -> None:
    keeper = DtlsDoorkeeper()
    second = with_cookie(asked(keeper))
    first_again = second[:17] + b"\0\0" + second[19:]
    third = second[:17] + b"\0\2" + second[19:]
    assert len(keeper.answer(first_again, ADDRESS) or b"") == 60
    assert keeper.answer(third, ADDRESS) == b""


def test_a_cookie_lives_for_one_to_two_periods() -> None:
    clock = Clock()
    cookies = Cookies(clock)
    first = read(hello_of(SMALLEST_BODY))
    clock.now += SECRET_S - 0.001
    second = read(with_cookie(cookies.bake(first, ADDRESS)))
    clock.now += SECRET_S
    assert cookies.read(second, ADDRESS) in (SECRET_MS - 1, SECRET_MS - 2)  # of a float
    cookies.bake(first, ADDRESS)
    assert cookies.read(second, ADDRESS) is not None
    clock.now += 0.002
    assert cookies.read(second, ADDRESS) is None
    cookies.bake(first, ADDRESS)
    assert cookies.read(second, ADDRESS) is None


def test_secrets_change_and_no_more_than_two_are_kept() -> None:
    clock = Clock()
    made: list[bytes] = []

    def random(size: int) -> bytes:
        made.append(bytes((len(made),)) * size)
        return made[-1]

    cookies = Cookies(clock, random)
    hello = read(hello_of(SMALLEST_BODY))
    for _ in range(5):
        for _ in range(3):
            cookies.bake(hello, ADDRESS)
        clock.now += SECRET_S
    assert len(made) == 5
    assert len(cookies._secrets) == 2


def test_a_later_cookie_is_known_to_be_later() -> None:
    clock = Clock()
    cookies = Cookies(clock)
    first = read(hello_of(SMALLEST_BODY))
    baked: list[int | None] = []
    for _ in range(3):
        baked.append(cookies.read(read(with_cookie(cookies.bake(first, ADDRESS))), ADDRESS))
        clock.now += 0.5
    assert baked == [0, 500, 1_000]


def test_the_question_repeats_the_number_of_the_record() -> None:
    hello = read(changed(5, b"\1\2\3\4\5\6"))
    assert ask_for_cookie(hello, b"cookie")[3:11] == b"\0\0\1\2\3\4\5\6"


def test_a_hundred_thousand_false_hellos_leave_no_memory_behind() -> None:
    keeper = DtlsDoorkeeper()
    hellos = [hello_of(SMALLEST_BODY.replace(RANDOM, bytes((seed,)) * 32)) for seed in range(100)]
    for number in range(1_000):
        keeper.answer(hellos[number % 100], ("198.51.100.9", number))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100_000):
            assert keeper.answer(hellos[number % 100], (f"198.51.{number % 256}.9", number % 65_536))
        after, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000
    assert most - before < 100_000
