"""Fuzz the codec, guided by coverage.

Usage: python tests/proxyproto/fuzz_decode.py --seconds 60             (built in; any Python)
       python tests/proxyproto/fuzz_decode.py --engine atheris         (libFuzzer; dependency group "fuzz")

Whatever `check` finds stops the run with the input that did it. The built-in engine keeps every input that reached a
new pair of lines of the package and mutates those; it is slow but needs nothing, so it also runs, bounded, as a test.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import esockd_proxyproto
from esockd_proxyproto import (
    Command,
    Decoder,
    Endpoint,
    IncompleteHeader,
    InvalidHeader,
    InvalidTlv,
    ProxyHeader,
    SslInfo,
    Tlv,
    TlvType,
    Tolerance,
    UnencodableHeader,
    UnixEndpoint,
    decode,
    decode_datagram,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

PACKAGE_FOLDER: Final = esockd_proxyproto.__file__.removesuffix("__init__.py")
VIEWS: Final = (
    "alpn",
    "authority",
    "crc32c",
    "unique_id",
    "ssl",
    "netns",
    "aws_vpce_id",
    "azure_link_id",
    "gcp_psc_connection_id",
)
SSL_VIEWS: Final = ("version", "common_name", "cipher", "signature_algorithm", "key_algorithm", "group")
TOLERANCES: Final = (Tolerance.NONE, ~Tolerance.NONE)

_A4, _B4 = Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)
_A6, _B6 = Endpoint("2001:db8::1", 1), Endpoint("::ffff:192.0.2.1", 65535)
_TLVS: Final = [
    Tlv(TlvType.ALPN, b"h2"),
    Tlv(TlvType.UNIQUE_ID, b"id"),
    SslInfo(1, 0, (Tlv(0x21, b"TLSv1.3"),)).to_tlv(),
    Tlv(TlvType.AWS, b"\x01vpce-1"),
    Tlv(TlvType.AZURE, b"\x01\x01\x00\x00\x00"),
    Tlv(TlvType.GCP, bytes(8)),
]
SEEDS: Final = (
    b"",
    b"GET / HTTP/1.0\r\n\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    encode(ProxyHeader(1, source=_A4, destination=_B4)),
    encode(ProxyHeader(1, source=_A6, destination=_B6)),
    encode(ProxyHeader(command=Command.LOCAL)),
    encode(ProxyHeader(source=_A4, destination=_B4), checksum=True),
    encode(ProxyHeader(source=_A6, destination=_B6, tlvs=_TLVS)),
    encode(ProxyHeader(source=UnixEndpoint("/a"), destination=UnixEndpoint(b"\0b"))),
    b"PROXY TCP6 " + b"ffff:" * 6 + b"255.255.255.255 " + b"ffff:" * 6 + b"255.255.255.255 65535 65535\r\n",
)
WORDS: Final = (
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b" ",
    b"\r\n",
    b"::",
    b"0",
    b"255",
    b"65535",
    b"\3\0\4",
    b"\5\0",
)


def check(data: bytes) -> None:
    """What holds for every input.

    Raises:
        AssertionError: It does not; any other error is a fault as well.
    """
    for tolerate in TOLERANCES:
        answer = answer_to(data, tolerate)
        assert answer_to(data + b"\r\n\0x", tolerate) == answer or not isinstance(answer[1], ProxyHeader)
        check_pieces(data, answer, tolerate)
        if isinstance(answer[1], ProxyHeader):
            header, consumed = answer[1], answer[0]
            assert 0 < consumed <= len(data)
            assert answer_to(data[:consumed], tolerate) == answer
            assert answer_to(data[: consumed - 1], tolerate)[1] is IncompleteHeader
            check_header(header)
        elif answer[1] is IncompleteHeader:
            assert answer[0] > 0
        else:
            assert 0 <= answer[0] < len(data)
            assert answer_to(data + b"\r\n\0x", tolerate)[1] is answer[1]
    check_datagram(data)


def answer_to(data: bytes, tolerate: Tolerance) -> tuple[int, object]:
    """One of three: length and header, bytes missing, or offset of the fault."""
    try:
        header, consumed = decode(data, tolerate=tolerate)
    except IncompleteHeader as error:
        return error.missing, IncompleteHeader
    except InvalidHeader as error:
        return error.offset, InvalidHeader
    return consumed, header


def check_pieces(data: bytes, answer: tuple[int, object], tolerate: Tolerance) -> None:
    """Reading no more than is missing gives the same answer and nothing over."""
    decoder = Decoder(tolerate=tolerate)
    at = 0
    same: tuple[int, object]
    try:
        while at < len(data) and decoder.header is None:
            at, piece = at + decoder.missing, data[at : at + decoder.missing]
            decoder.feed(piece)
    except InvalidHeader as error:
        same = (error.offset, InvalidHeader)
    else:
        same = (decoder.missing, IncompleteHeader) if decoder.header is None else (at, decoder.header)
    assert same == answer
    assert decoder.trailing == b""


def check_header(header: ProxyHeader) -> None:
    """A header that was read can be asked everything, and written again if senders may send it."""
    for name in VIEWS:
        try:
            view = getattr(header, name)
            if isinstance(view, SslInfo):
                assert header.tlv(TlvType.SSL) == view.to_tlv().value
                for sub_name in SSL_VIEWS:
                    getattr(view, sub_name)
        except InvalidTlv:
            continue
    assert (header.source is None) == (header.destination is None)
    try:
        data = encode(header)
    except UnencodableHeader:
        return
    again, consumed = decode(data)
    assert consumed == len(data)
    assert again.replace(tlvs=()) == header.replace(tlvs=())


def check_datagram(data: bytes) -> None:
    """A datagram has a header or it has not."""
    try:
        _, payload = decode_datagram(data)
    except InvalidHeader:
        return
    assert data.endswith(payload)


class Coverage:
    """The pairs of lines that ran one after the other in files below a folder."""

    def __init__(self, folder: str) -> None:
        self.pairs: set[tuple[CodeType, int, int]] = set()
        self._folder = folder
        self._last = 0

    def run(self, target: Callable[[bytes], None], data: bytes) -> bool:
        """Run the target; tell whether it went where nothing went before."""
        before, outer = len(self.pairs), sys.gettrace()
        sys.settrace(self._enter)
        try:
            target(data)
        finally:
            sys.settrace(outer)
        return len(self.pairs) > before

    def _enter(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        return self._step if frame.f_code.co_filename.startswith(self._folder) else None

    def _step(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event == "line":
            self.pairs.add((frame.f_code, self._last, frame.f_lineno))
            self._last = frame.f_lineno
        return self._step


def mutate(data: bytes, corpus: list[bytes], chance: random.Random) -> bytes:
    """One to four small changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(changed))
        match chance.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[at:at] = bytes([chance.randrange(256)])
            case 2:
                del changed[at : at + chance.randint(1, 8)]
            case 3:
                changed[at:at] = chance.choice(WORDS)
            case 4:
                changed[at:at] = changed[at : at + chance.randint(1, 16)]
            case 5 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case _:
                other = chance.choice(corpus)
                changed[at:] = other[chance.randint(0, len(other)) :]
    return bytes(changed[:1000])


def fuzz(
    target: Callable[[bytes], None],
    *,
    folder: str = PACKAGE_FOLDER,
    seeds: tuple[bytes, ...] = SEEDS,
    runs: int,
    seconds: float = float("inf"),
    seed: int = 0,
) -> tuple[int, int]:
    """Run the target on mutations of what reached new code; give the number of inputs kept and of pairs of lines."""
    chance, coverage, end = random.Random(seed), Coverage(folder), time.monotonic() + seconds
    corpus = list(seeds)
    for data in seeds:
        coverage.run(target, data)
    for _ in range(runs):
        if time.monotonic() > end:
            break
        data = mutate(chance.choice(corpus), corpus, chance)
        try:
            is_new = coverage.run(target, data)
        except Exception as error:
            error.add_note(f"input: {data!r}")
            raise
        if is_new:
            corpus.append(data)
    return len(corpus), len(coverage.pairs)


def fuzz_with_atheris(seconds: float, runs: int) -> None:
    """Run the target under libFuzzer, which ends the process by itself."""
    atheris: Any = importlib.import_module("atheris")  # optional, and not for every Python
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(SEEDS):
            (Path(corpus) / str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], corpus, f"-max_total_time={int(seconds)}", f"-runs={min(runs, 2**31 - 1)}"], check)
        atheris.Fuzz()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=["builtin", "atheris"], default="builtin")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.engine == "atheris":
        fuzz_with_atheris(options.seconds, options.runs)
    inputs, pairs = fuzz(check, runs=options.runs, seconds=options.seconds, seed=options.seed)
    print(f"no fault; {inputs} inputs kept, {pairs} pairs of lines reached")


if __name__ == "__main__":
    main()
