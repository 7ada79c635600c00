"""What options keep, and what a change of them takes to be in force."""

from __future__ import annotations

import pytest

from esockd_cidr import AccessList
from esockd_core import Effect, InvalidOption, ListenerOptions, ProxyOptions, TcpOptions, plan_options
from esockd_core._options.changes import merge_options
from esockd_proxyproto import Policy


def test_rules_given_as_an_iterator_are_read_once_and_kept() -> None:
    options = ListenerOptions(access_rules=(rule for rule in ["allow 10.0.0.0/8", "deny all"]))
    assert not options.access_list().allows("192.0.2.1")
    assert not options.access_list().allows("192.0.2.1")


def test_trusted_proxies_given_as_an_iterator_are_read_once_and_kept() -> None:
    options = ProxyOptions(trusted=(network for network in ["10.0.0.0/8"]))
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
        ({"proxy_protocol": {"trusted": ["10.0.0.0/8"]}}, Effect.NEW_CONNECTIONS),
        ({"tcp": {"reuse_port": True}}, Effect.REOPEN),
        ({"unix": {"mode": 0o600}}, Effect.REOPEN),
    ],
)
def test_a_plan_says_when_a_change_is_in_force(changes: dict[str, object], effect: Effect) -> None:
    old = ListenerOptions()
    plan = plan_options(old, merge_options(old, changes))
    assert [change.effect for change in plan.changes] == [effect]


@pytest.mark.parametrize(
    ("changes", "effect"),
    [
        ({"policy": "use"}, Effect.NEW_CONNECTIONS),
        ({"trusted": ["10.0.0.0/8"]}, Effect.LIVE),
        ({"header_timeout": 2}, Effect.LIVE),
        ({"access_rules_on": "both"}, Effect.LIVE),
    ],
)
def test_a_plan_looks_into_the_options_of_a_proxy(changes: dict[str, object], effect: Effect) -> None:
    old = ListenerOptions(proxy_protocol=True)
    plan = plan_options(old, merge_options(old, {"proxy_protocol": changes}))
    assert [(change.name, change.effect) for change in plan.changes] == [
        (f"proxy_protocol.{name}", effect) for name in changes
    ]
    assert "proxy_protocol" in plan


def test_the_forms_of_proxy_protocol_differ_in_words_only() -> None:
    forms: list[bool | str | ProxyOptions] = [
        True,
        "require",
        Policy.REQUIRE,
        ProxyOptions(),
        ProxyOptions(policy="require"),
    ]
    assert {ListenerOptions(proxy_protocol=form).proxy_protocol for form in forms} == {ProxyOptions()}
    assert [ListenerOptions(proxy_protocol=form).proxy for form in (False, "skip", Policy.SKIP)] == [None] * 3


def test_an_option_that_goes_back_to_the_kernels_own_value_takes_new_sockets() -> None:
    old = ListenerOptions(tcp=TcpOptions(user_timeout=5.0))
    plan = plan_options(old, merge_options(old, {"tcp": {"user_timeout": None}}))
    assert plan.needs_reopen == ("tcp.user_timeout",)


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


def test_proxies_differ_where_their_networks_do_however_they_are_written() -> None:
    written = ListenerOptions(proxy_protocol=ProxyOptions(trusted=["10.0.0.0/8"]))
    same = ProxyOptions(trusted=AccessList(["allow 10.0.0.0/8"], "deny"))
    other = ProxyOptions(trusted=AccessList(["allow 10.0.0.0/9"], "deny"))
    assert plan_options(written, ListenerOptions(proxy_protocol=same)).changes == ()
    assert "proxy_protocol.trusted" in plan_options(written, ListenerOptions(proxy_protocol=other))


def test_nested_options_merge_and_the_rest_of_them_stays() -> None:
    old = ListenerOptions(tcp=TcpOptions(backlog=5, keepalive=True))
    merged = merge_options(old, {"tcp": {"backlog": 6}})
    assert merged.tcp == TcpOptions(backlog=6, keepalive=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_conections": 5}, 'max_conections: there is no such option. Did you mean "max_connections"?'),
        ({"tcp": {"backlg": 5}}, 'tcp.backlg: there is no such option. Did you mean "backlog"?'),
        ({"tls": {"certfle": "x"}}, 'tls.certfle: there is no such option. Did you mean "certfile"?'),
        ({"tls": {"keyfile": "x"}}, "tls.certfile is None: tls takes it"),
    ],
)
def test_an_unknown_or_missing_name_is_told_with_what_was_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message.replace("?", r"\?")):
        merge_options(ListenerOptions(), changes)
