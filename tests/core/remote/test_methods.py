"""What crosses the socket: the table of methods, arguments and errors."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from esockd_cidr import AccessList, Rule
from esockd_core import (
    AddressInUse,
    AlreadyOpen,
    CannotBind,
    ControlDenied,
    ControlError,
    EsockdError,
    InstanceUnreachable,
    InvalidAddress,
    InvalidOption,
    ListenerClosed,
    ListenerControl,
    ProxyOptions,
    RehearsalConflict,
    UnknownListener,
    UnknownMethod,
    parse_address,
)
from esockd_core._remote.errors import error_from_json, error_to_json
from esockd_core._remote.methods import CHANGES, METHODS, WAITS
from esockd_core._remote.values import argument_to_json
from esockd_ratelimit import Rate

LOOKS = {
    "explain", "find_connection", "get_acceptors", "get_access_rules", "get_options", "get_refusals", "get_rehearsal",
    "get_stats", "get_status", "get_top_sources", "list_connections", "plan_options", "test_rules", "wait_closed",
}  # fmt: skip


def test_every_method_crosses_the_socket_and_is_known_to_look_or_to_change() -> None:
    """A method that is new to `ListenerControl` has to be put on one side: read-only connections depend on it."""
    assert set(METHODS) == ListenerControl.__abstractmethods__ == LOOKS | CHANGES
    assert not LOOKS & CHANGES
    assert set(METHODS) >= WAITS


@pytest.mark.parametrize(
    ("method", "given", "option", "takes"),
    [
        ("deny", {}, "network", "missing"),
        ("deny", {"network": 5}, "network", "it takes text"),
        ("explain", {"address": None}, "address", "it takes text"),
        ("explain", {"address": "::1", "proxy": {}}, "proxy", "it takes text or nothing"),
        ("list_connections", {"limit": "many"}, "limit", "a whole number"),
        ("list_connections", {"limit": True}, "limit", "a whole number"),
        ("drain", {"timeout": []}, "timeout", "a number or nothing"),
        ("replace_rules", {"rules": "deny all"}, "rules", "a list"),
        ("replace_rules", {"rules": [1]}, "rules", "a list"),
        ("reopen", {"address": {}}, "address", "text or a whole number or a list or nothing"),
        ("set_options", {"changes": []}, "changes", "options by name"),
        ("set_options", {"changes": {"refuse_with": {"base64": "?"}}}, "changes", "options by name"),
        ("set_options", {"changes": {"reopen": True}}, "reopen", "not an option"),
    ],
)
def test_parameters_of_a_wrong_type_are_invalid_options(
    method: str, given: dict[str, Any], option: str, takes: str
) -> None:
    with pytest.raises(InvalidOption, match=takes) as caught:
        METHODS[method].bind(given)
    assert caught.value.option == option


def test_parameters_become_arguments() -> None:
    assert METHODS["replace_rules"].bind({"rules": ["deny all"]}) == (["deny all"], {})
    assert METHODS["replace_rules"].bind({}) == ([], {})
    assert METHODS["reopen"].bind({"address": ["::1", 0]}) == ([], {"address": ("::1", 0)})
    assert METHODS["drain"].bind({"timeout": None}) == ([], {"timeout": None})
    changes = {"refuse_with": {"base64": "YnVzeQ=="}, "tcp": {"backlog": 5}, "access_rules": [["deny", "all"]]}
    assert METHODS["set_options"].bind({"reopen": True, "changes": changes}) == (
        [],
        {"reopen": True, "refuse_with": b"busy", "tcp": {"backlog": 5}, "access_rules": (("deny", "all"),)},
    )


def test_a_parameter_of_a_newer_version_is_passed_over_where_nothing_changes_and_refused_where_something_does() -> None:
    assert METHODS["get_stats"].bind({"since": 5}) == ([], {})
    with pytest.raises(ControlError, match="deny knows no parameter for") as caught:
        METHODS["deny"].bind({"network": "::1", "for": 60})
    assert caught.value.code == "unknown_parameter"


@pytest.mark.parametrize(
    ("argument", "travelled"),
    [
        (b"bye", {"base64": "Ynll"}),
        (Path("/etc/tls.pem"), "/etc/tls.pem"),
        (Rule("deny", "10.0.0.0/8"), "deny 10.0.0.0/8"),
        (Rate.parse("5/min"), "5/min"),
        (Fraction(1, 2), "0.5/s"),
        (AccessList(["allow ::1"], "deny"), ["allow ::1", "deny all"]),
        (("deny", "all"), ["deny", "all"]),
        ({"certfile": Path("a.pem"), "password": "secret"}, {"certfile": "a.pem", "password": "secret"}),
        (parse_address("[::1]:80"), "[::1]:80"),
    ],
)
def test_arguments_travel_as_texts_and_numbers(argument: object, travelled: object) -> None:
    assert argument_to_json("x", argument) == travelled


def test_a_group_of_options_travels_whole() -> None:
    travelled = argument_to_json("proxy_protocol", ProxyOptions(trusted=["10.0.0.0/8"]))
    assert travelled["trusted"] == ["10.0.0.0/8"]
    assert travelled.keys() == ProxyOptions.__dataclass_fields__.keys()


@pytest.mark.parametrize("argument", [print, object(), float("nan"), {"tcp": {"deep": print}}])
def test_what_is_of_one_process_only_does_not_travel(argument: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        argument_to_json("load_hook", argument)
    assert caught.value.option is not None
    assert caught.value.option.startswith("load_hook")


ERRORS: list[EsockdError] = [
    InvalidOption("it takes 1 or more", option="acceptors", value=0, hint="Give 1."),
    InvalidOption("they exclude each other"),
    InvalidOption("it holds it twice", option="rules", value=("deny all", "deny all")),
    InvalidAddress("no port", option="address", value="x"),
    AddressInUse(98, "127.0.0.1:80 is already in use", "Try port 0"),
    CannotBind(13, "cannot listen on port 80: Permission denied"),
    CannotBind(None, "cannot resolve"),
    ListenerClosed("listener echo is closed"),
    AlreadyOpen("open already"),
    RehearsalConflict("listener echo has no rehearsal"),
    UnknownListener("no listener echo"),
    InstanceUnreachable("gone", code="unreachable", hint="Start it."),
    ControlDenied("no", code="denied"),
    UnknownMethod("rehearse", code="unknown_method"),
    ControlError("too many", code="busy", hint="Wait."),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_is_the_same_on_the_other_side(error: EsockdError) -> None:
    other = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert {name: value for name, value in vars(other).items() if name != "__notes__"} == vars(error)
    assert str(pickle.loads(pickle.dumps(other))) == str(error)


def test_an_error_of_a_newer_version_still_says_what_it_is() -> None:
    error = error_from_json({"code": "quota_exceeded", "message": "your quota is used up", "since": 5})
    assert type(error) is ControlError
    assert (error.code, str(error)) == ("quota_exceeded", "your quota is used up")


@pytest.mark.parametrize(
    "parts", [{}, {"code": 5, "message": []}, {"code": "invalid_option", "value": {"base64": "?"}}]
)
def test_an_error_that_says_nothing_is_an_error_all_the_same(parts: dict[str, Any]) -> None:
    assert str(error_from_json(parts))


def test_a_value_that_cannot_travel_is_shown() -> None:
    error = error_from_json(error_to_json(InvalidOption("it takes a name", option="handler", value=len)))
    assert isinstance(error, InvalidOption)
    assert error.value == "<built-in function len>"
