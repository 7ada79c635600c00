"""The one table of options: complete, and of one mind with the classes that hold the options."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from esockd_core import (
    OPTION_TABLE,
    OPTIONS,
    DtlsArguments,
    DtlsOptions,
    InvalidOption,
    ListenerOptions,
    OptionArguments,
    ProxyArguments,
    ProxyOptions,
    TcpArguments,
    TcpOptions,
    TlsArguments,
    TlsOptions,
    UdpArguments,
    UdpOptions,
    UnixArguments,
    UnixOptions,
    UpstreamTlsOptions,
)
from esockd_core.handlers import ForwardHandler

GROUPS: dict[str, Any] = {
    "": ListenerOptions,
    "proxy_protocol": ProxyOptions,
    "tls": TlsOptions,
    "dtls": DtlsOptions,
    "tcp": TcpOptions,
    "unix": UnixOptions,
    "udp": UdpOptions,
    "forward.tls": UpstreamTlsOptions,
}
ARGUMENTS: dict[str, Any] = {
    "": OptionArguments,
    "proxy_protocol": ProxyArguments,
    "tls": TlsArguments,
    "dtls": DtlsArguments,
    "tcp": TcpArguments,
    "unix": UnixArguments,
    "udp": UdpArguments,
}
NESTED = {"tcp", "unix", "udp", "tls", "dtls"}  # groups that are no option of their own


def default_of(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_stands_in_the_table_with_its_default_and_nothing_else_does(group: str) -> None:
    in_class = {f.name: default_of(f) for f in dataclasses.fields(GROUPS[group]) if group or f.name not in NESTED}
    in_table = {option.field: option.default for option in OPTIONS.values() if option.group == group}
    assert in_table == in_class


def test_the_options_of_a_forwarder_stand_in_the_table() -> None:
    parameters = inspect.signature(ForwardHandler).parameters
    in_class = {name: given.default for name, given in parameters.items() if given.kind is given.KEYWORD_ONLY}
    assert in_class.pop("tls") is None
    assert {option.field: option.default for option in OPTIONS.values() if option.group == "forward"} == in_class


def test_the_table_has_no_other_groups() -> None:
    assert {option.group for option in OPTIONS.values()} == {*GROUPS, "forward"}


@pytest.mark.parametrize("group", ARGUMENTS)
def test_keyword_arguments_have_the_names_and_types_of_the_options(group: str) -> None:
    in_class = {field.name: field.type for field in dataclasses.fields(GROUPS[group])}
    arguments = {name: given.__forward_arg__ for name, given in ARGUMENTS[group].__annotations__.items()}
    if not group:  # what is nested may also be given as a mapping
        for name in (*NESTED, "proxy_protocol"):
            arguments[name] = arguments[name].replace(f" | {name.partition('_')[0].capitalize()}Arguments", "")
    assert arguments == in_class


def test_the_table_by_topic_and_by_name_holds_the_same() -> None:
    assert [*OPTIONS.values()] == [option for options in OPTION_TABLE.values() for option in options]
    assert all(name == option.name for name, option in OPTIONS.items())


def test_flags_and_keys_are_those_of_one_option() -> None:
    flags = [flag for option in OPTIONS.values() for flag in option.flags.split()]
    keys = [option.key for option in OPTIONS.values() if option.key is not None]
    assert len(set(flags)) == len(flags)
    assert len(set(keys)) == len(keys)
    assert OPTIONS["max_connections"].key == "max_connections"
    assert OPTIONS["proxy_protocol.header_timeout"].key == "proxy_protocol_timeout"
    assert OPTIONS["tls.certfile"].key == "cert"
    assert OPTIONS["tcp.nodelay"].key == "tcp_options.nodelay"
    assert OPTIONS["load_hook"].key is None


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_each_option_is_described_in_a_line(option: Any) -> None:
    assert option.text.endswith(".")
    assert option.text[0].isupper()
    assert len(option.text) <= 105
    assert "\n" not in option.text


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_each_default_is_allowed_and_comes_back_from_its_text(option: Any) -> None:
    if option.default is dataclasses.MISSING:
        return
    option.kind.check(option.name, option.default)
    if option.kind.is_text and not option.kind.is_list:
        assert option.kind.parse(option.name, option.kind.format(option.default)) == option.default


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_each_option_refuses_what_it_is_not(option: Any) -> None:
    if not option.kind.is_text:
        return
    with pytest.raises(InvalidOption) as refused:
        option.kind.check(option.name, object())
    assert refused.value.option == option.name
    assert refused.value.reason
