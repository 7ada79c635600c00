"""Errors about a bad value: their parts, their text, and that they travel."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from esockd_core import AddressInUse, CannotBind, InvalidAddress, InvalidOption

WHOLE = InvalidOption(
    "it takes a whole number, 1 or more.", option="max_connections", value=0, hint="For no bound give None."
)


def test_a_bad_value_tells_option_value_reason_and_hint_in_one_form() -> None:
    assert str(WHOLE) == "max_connections is 0: it takes a whole number, 1 or more. For no bound give None."
    assert str(InvalidOption("it takes a name", option="user")) == "user: it takes a name."
    assert str(InvalidOption("give one of them")) == "give one of them."


def test_the_text_of_a_bad_value_is_never_endless() -> None:
    assert len(str(InvalidOption("it is too long", option="name", value="x" * 10_000))) < 300


@pytest.mark.parametrize("travel", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_of_a_socket_keeps_its_parts_too(travel) -> None:  # type: ignore[no-untyped-def]
    error = travel(AddressInUse(errno.EADDRINUSE, "it is in use", "Try port 0."))
    assert (type(error), error.errno, error.strerror, error.hint) == (
        AddressInUse,
        errno.EADDRINUSE,
        "it is in use",
        "Try port 0.",
    )
    assert str(error) == "it is in use. Try port 0."
    assert str(CannotBind(errno.EPERM, "no")) == "no"


@pytest.mark.parametrize("kind", [InvalidOption, InvalidAddress])
@pytest.mark.parametrize("travel", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_bad_value_keeps_its_parts_when_it_is_copied_or_pickled(kind, travel) -> None:  # type: ignore[no-untyped-def]
    error = travel(kind("no", option="tcp.backlog", value=-1, hint="Try 1."))
    assert type(error) is kind
    assert (error.reason, error.option, error.value, error.hint) == ("no", "tcp.backlog", -1, "Try 1.")
    assert str(error) == "tcp.backlog is -1: no. Try 1."
