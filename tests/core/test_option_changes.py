"""What options keep, and what a change of them takes to be in force."""

from __future__ import annotations

from dataclasses import fields

import pytest

from esockd_cidr import AccessList
from esockd_core import Effect, InvalidOption, ListenerOptions, TcpOptions, UnixOptions, plan_options
from esockd_core._option_changes import NEW_CONNECTIONS, REOPEN, merge_options


def test_rules_given_as_an_iterator_are_read_once_and_kept() -> None:
    options = ListenerOptions(access_rules=(rule for rule in ["allow 10.0.0.0/8", "deny all"]))
    assert not options.access_list().allows("192.0.2.1")
    assert not options.access_list().allows("192.0.2.1")


def test_trusted_upstreams_given_as_an_iterator_are_read_once_and_kept() -> None:
    options = ListenerOptions(proxy_protocol=True, trusted=(network for network in ["10.0.0.0/8"]))
    assert options.trusted_list().allows("10.1.2.3")
    assert not options.trusted_list().allows("192.0.2.1")


def test_nothing_differs_between_equal_options_however_their_rules_are_written() -> None:
    written = ListenerOptions(access_rules=["deny 10.0.0.1/32", ("allow", "10.0.0.0/8")])
    listed = ListenerOptions(access_rules=AccessList(["deny 10.0.0.1", "allow 10.0.0.0/8"]))
    assert plan_options(written, listed).changes == ()


def test_the_default_of_an_access_list_is_part_of_the_rules() -> None:
    plan = plan_options(ListenerOptions(), ListenerOptions(access_rules=AccessList((), "deny")))
    assert [change.name for change in plan.changes] == ["access_rules"]


@pytest.mark.parametrize(
    ("changes", "effect"),
    [
        ({"max_connections": 5}, Effect.LIVE),
        ({"access_rules": ["deny all"]}, Effect.LIVE),
        ({"idle_timeout": 5}, Effect.LIVE),
        ({"acceptors": 4}, Effect.LIVE),
        ({"tcp": {"backlog": 5}}, Effect.LIVE),
        ({"tcp": {"nodelay": False}}, Effect.NEW_CONNECTIONS),
        ({"tcp": {"tune_buffer": True}}, Effect.NEW_CONNECTIONS),
        ({"write_buffer_bytes": 5}, Effect.NEW_CONNECTIONS),
        ({"proxy_protocol": True}, Effect.NEW_CONNECTIONS),
        ({"tcp": {"reuse_port": True}}, Effect.REOPEN),
        ({"unix": {"mode": 0o600}}, Effect.REOPEN),
    ],
)
def test_a_plan_says_when_a_change_is_in_force(changes: dict[str, object], effect: Effect) -> None:
    old = ListenerOptions()
    plan = plan_options(old, merge_options(old, changes))
    assert [change.effect for change in plan.changes] == [effect]


def test_an_option_that_goes_back_to_the_kernels_own_value_takes_new_sockets() -> None:
    old = ListenerOptions(tcp=TcpOptions(user_timeout_s=5.0))
    plan = plan_options(old, merge_options(old, {"tcp": {"user_timeout_s": None}}))
    assert plan.needs_reopen == ("tcp.user_timeout_s",)


def test_a_plan_names_old_and_new_values_in_the_order_of_the_options() -> None:
    plan = plan_options(
        ListenerOptions(), ListenerOptions(max_connections=5, idle_timeout=2, tcp=TcpOptions(backlog=9))
    )
    assert [(change.name, change.old, change.new) for change in plan.changes] == [
        ("max_connections", 1024, 5),
        ("idle_timeout", None, 2),
        ("tcp.backlog", 1024, 9),
    ]
    assert "tcp" in plan
    assert "tcp.backlog" in plan
    assert "acceptors" not in plan


def test_every_name_in_the_table_of_effects_is_an_option() -> None:
    known = {field.name for field in fields(ListenerOptions)}
    known |= {f"tcp.{field.name}" for field in fields(TcpOptions)}
    known |= {f"unix.{field.name}" for field in fields(UnixOptions)}
    assert known >= NEW_CONNECTIONS | REOPEN


def test_nested_options_merge_and_the_rest_of_them_stays() -> None:
    old = ListenerOptions(tcp=TcpOptions(backlog=5, keepalive=True))
    merged = merge_options(old, {"tcp": {"backlog": 6}})
    assert merged.tcp == TcpOptions(backlog=6, keepalive=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_conections": 5}, 'unknown option "max_conections". Did you mean "max_connections"?'),
        ({"tcp": {"backlg": 5}}, 'unknown option "tcp.backlg". Did you mean "backlog"?'),
        ({"tls": {"certfle": "x"}}, 'unknown option "tls.certfle". Did you mean "certfile"?'),
        ({"tls": {"keyfile": "x"}}, "tls: .*certfile"),
    ],
)
def test_an_unknown_or_missing_name_is_told_with_what_was_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message.replace("?", r"\?")):
        merge_options(ListenerOptions(), changes)
