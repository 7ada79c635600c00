"""An error about a value has one shape in every package, so that the command never has to search a text."""

from __future__ import annotations

import copy
import pickle

import pytest

import esockd_cidr
import esockd_core
import esockd_proxyproto
import esockd_ratelimit

KINDS = [
    esockd_cidr.InvalidAddress,
    esockd_cidr.InvalidRule,
    esockd_core.InvalidAddress,
    esockd_core.InvalidOption,
    esockd_proxyproto.InvalidOption,
    esockd_proxyproto.InvalidTlv,
    esockd_proxyproto.UnencodableHeader,
    esockd_ratelimit.InvalidOption,
    esockd_ratelimit.InvalidRate,
    esockd_ratelimit.InvalidTokens,
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_about_a_value_has_the_same_parts_and_the_same_text_in_every_package(kind: type[ValueError]) -> None:
    error = kind("it takes a number, 1 or more", option="lines", value="none", hint="Write 1.")  # type: ignore[call-arg]
    for twin in (error, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(twin, ValueError)
        parts = [getattr(twin, name) for name in ("option", "value", "reason", "hint")]
        assert parts == ["lines", "none", "it takes a number, 1 or more", "Write 1."]
        assert str(twin) == "lines is 'none': it takes a number, 1 or more. Write 1."


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_are_missing_are_left_out_of_the_text(kind: type[ValueError]) -> None:
    assert str(kind("they exclude each other")) == "they exclude each other."
    assert str(kind("it is missing", option="name")) == "name: it is missing."  # type: ignore[call-arg]
    assert str(kind("it is nothing", value=None)) == "None: it is nothing."  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_shown_escaped_and_never_at_full_length(kind: type[ValueError]) -> None:
    text = str(kind("it is too long", option="name", value="\x1b[31m" + "x" * 10**6))  # type: ignore[call-arg]
    assert text.startswith("name is '\\x1b[31mxxx")
    assert len(text) < 300
