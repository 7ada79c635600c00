"""What every error of the package has in common."""

from __future__ import annotations

import copy
import pickle

import pytest

from esockd_proxyproto import (
    BadValueError,
    HeaderComplete,
    IncompleteHeader,
    InvalidHeader,
    InvalidOption,
    InvalidTlv,
    NotProxyHeader,
    ProxyProtocolError,
    UnencodableHeader,
)
from esockd_proxyproto.streams import HeaderTimeout, HeaderTruncated


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (IncompleteHeader(5), "incomplete PROXY protocol header: at least 5 more bytes are needed"),
        (InvalidHeader("a bad byte", 3, "PP 2.1"), "invalid PROXY protocol header at byte 3: a bad byte (PP 2.1)"),
        (NotProxyHeader("no signature", 0, "PP 2"), "invalid PROXY protocol header at byte 0: no signature (PP 2)"),
        (HeaderComplete("why"), "why"),
        (HeaderTimeout(b"PRO", 5.0), "no whole PROXY protocol header within 5.0 s; 3 bytes of it came"),
        (HeaderTruncated(b"PRO"), "the peer closed after 3 bytes, before a whole PROXY protocol header"),
        (InvalidOption("it takes 1", option="a", value=2, hint="Do this."), "a is 2: it takes 1. Do this."),
        (InvalidOption("it takes 1", option="a"), "a: it takes 1."),
        (InvalidTlv("it is not text", value="x" * 81), f"'{'x' * 80}'...: it is not text."),
        (UnencodableHeader("it takes 1", value=[0] * 99), f"{str([0] * 99)[:80]}...: it takes 1."),
        (UnencodableHeader("they go together"), "they go together."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_what_it_is_about_and_survives_copying_and_pickling(error: ProxyProtocolError, text: str) -> None:
    assert isinstance(error, ValueError)
    for twin in (error, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)
        assert str(twin) == text


@pytest.mark.parametrize("kind", [InvalidOption, InvalidTlv, UnencodableHeader])
def test_errors_about_a_value_have_one_base_and_one_shape(kind: type[BadValueError]) -> None:
    error = kind("it takes 1", option="a", value=2, hint="Do this.")
    assert isinstance(error, BadValueError)
    assert (error.reason, error.option, error.value, error.hint) == ("it takes 1", "a", 2, "Do this.")
