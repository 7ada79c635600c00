"""`explain`: what would happen to a client that came now, which is what does happen when it comes."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, until

from esockd_core import Explanation, InvalidOption, Listener, Stage, Verdict, open_listener
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

CLIENT = "127.0.0.5"
SOURCE = "192.0.2.7"
HEADER = encode(ProxyHeader(2, source=Endpoint(SOURCE, 41000), destination=Endpoint("192.0.2.1", 443)))


def told(explanation: Explanation) -> list[tuple[str, str]]:
    return [(stage.name, str(stage.verdict)) for stage in explanation.stages]


@asynccontextmanager
async def closing() -> AsyncIterator[ExitStack]:
    """Clients that are closed before their listener is."""
    with ExitStack() as stack:
        yield stack


async def is_served(listener: Listener, header: bytes = b"", client: str = CLIENT) -> bool:
    """Whether a real client is."""
    with connect(listener, client) as real, suppress(ConnectionError):
        real.send(header)
        return await answer(real) == b"hello"
    return False


async def test_every_stage_is_told_in_the_order_of_the_path() -> None:
    async with open_listener(
        "echo",
        "127.0.0.1:0",
        echo,
        access_rules=["deny 10.0.0.0/8"],
        max_connections=9,
        max_connections_per_source=3,
        max_conn_rate="5/s",
        max_conn_rate_per_source="2/s",
    ) as listener:
        explanation = await listener.explain(CLIENT)
        assert told(explanation) == [
            ("listener", "pass"),
            ("access rules", "pass"),
            ("room", "pass"),
            ("room of its source", "pass"),
            ("rate of its source", "pass"),
            ("rate", "pass"),
            ("load", "pass"),
        ]
        assert explanation.is_admitted
        assert explanation.decided_by is None
        refused = await listener.explain("10.1.2.3")
        assert refused.decided_by == Stage(
            "access rules", Verdict.REFUSE, "access rule 0: deny 10.0.0.0/8, for 10.1.2.3"
        )
        assert len(refused.stages) == 7


@pytest.mark.parametrize(
    ("options", "others", "decided_by"),
    [
        ({}, 0, None),
        ({"access_rules": [f"deny {CLIENT}"]}, 0, "access rules"),
        ({"access_rules": [f"allow {CLIENT}", "deny all"]}, 0, None),
        ({"max_connections": 1}, 1, "room"),
        ({"max_connections": 2}, 1, None),
        ({"max_connections_per_source": 1}, 1, "room of its source"),
        ({"max_connections_per_source": 2}, 1, None),
        ({"max_conn_rate": "1/h"}, 1, "rate"),
        ({"max_conn_rate": "1/h burst 2"}, 1, None),
        ({"max_conn_rate_per_source": "1/h"}, 1, "rate of its source"),
        ({"max_conn_rate_per_source": "1/h", "max_conn_rate": "1/h"}, 1, "rate of its source"),
        ({"max_connections": 1, "access_rules": [f"deny {CLIENT}"]}, 0, "access rules"),
    ],
)
async def test_what_is_explained_is_what_happens(options: dict[str, Any], others: int, decided_by: str | None) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, **options) as listener, closing() as stack:
            for _ in range(others):
                other = stack.enter_context(connect(listener, CLIENT))
                assert await answer(other) == b"hello"
            await listener.explain(CLIENT)  # asking spends nothing
            explanation = await listener.explain(CLIENT)
            found = explanation.decided_by
            assert (None if found is None else found.name) == decided_by
            assert await is_served(listener) == explanation.is_admitted


@pytest.mark.parametrize(
    ("options", "proxy", "decided_by"),
    [
        ({"proxy_protocol": {"trusted": ["127.0.0.0/8"]}}, CLIENT, None),
        ({"proxy_protocol": {"trusted": ["10.0.0.0/8"]}}, CLIENT, "trusted proxies"),
        ({"access_rules": [f"deny {SOURCE}"]}, CLIENT, "access rules"),
        ({"access_rules": [f"deny {CLIENT}"]}, CLIENT, None),
        ({"access_rules": [f"deny {CLIENT}"], "proxy_protocol": {"access_rules_on": "peer"}}, CLIENT, "access rules"),
        ({"access_rules": [f"deny {SOURCE}"], "proxy_protocol": {"access_rules_on": "peer"}}, CLIENT, None),
        ({"access_rules": [f"deny {SOURCE}"], "proxy_protocol": {"access_rules_on": "both"}}, CLIENT, "access rules"),
        ({"access_rules": [f"deny {CLIENT}"], "proxy_protocol": {"access_rules_on": "both"}}, CLIENT, "access rules"),
        ({"max_connections_per_source": 1}, CLIENT, None),
    ],
)
async def test_what_is_explained_behind_a_proxy_is_what_happens(
    options: dict[str, Any], proxy: str, decided_by: str | None
) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, **{"proxy_protocol": True, **options}) as listener:
            explanation = await listener.explain(SOURCE, proxy=proxy)
            found = explanation.decided_by
            assert (None if found is None else found.name) == decided_by
            assert await is_served(listener, HEADER, proxy) == explanation.is_admitted


async def test_a_source_at_its_limit_is_refused_though_the_proxy_is_let_in() -> None:
    with anyio.fail_after(20):
        async with open_listener(
            "echo", "127.0.0.1:0", echo, proxy_protocol=True, max_connections_per_source=1
        ) as listener:
            with connect(listener) as first:
                first.send(HEADER)
                assert await answer(first) == b"hello"
                explanation = await listener.explain(SOURCE, proxy="127.0.0.1")
                assert explanation.decided_by is not None
                assert explanation.decided_by.name == "room of its source"
                assert not await is_served(listener, HEADER)
                assert (await listener.explain("192.0.2.8", proxy="127.0.0.1")).is_admitted


async def test_a_listener_that_does_not_accept_says_so() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        await listener.suspend()
        explanation = await listener.explain(CLIENT)
        assert explanation.decided_by is not None
        assert (explanation.decided_by.name, explanation.decided_by.verdict) == ("listener", Verdict.WAIT)
    explanation = await listener.explain(CLIENT)
    assert explanation.decided_by is not None
    assert explanation.decided_by.verdict is Verdict.REFUSE


@pytest.mark.parametrize("option", ["when_full", "when_limited"])
async def test_a_client_that_would_be_left_in_the_backlog_waits(option: str) -> None:
    limits: dict[str, Any] = {"max_connections": 1, "max_conn_rate": "1/h", option: "backlog"}
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, **limits) as listener:
            with connect(listener) as first:
                assert await answer(first) == b"hello"
                verdicts = dict(told(await listener.explain(CLIENT)))
                waits = {"when_full": "room", "when_limited": "rate"}[option]
                assert verdicts[waits] == "wait"
                assert verdicts[{"room": "rate", "rate": "room"}[waits]] == "refuse"


async def test_a_hook_is_not_asked_and_so_the_answer_is_open() -> None:
    asked = []

    def hook(peer: object) -> bool:
        asked.append(peer)
        return True

    async with open_listener("echo", "127.0.0.1:0", echo, load_hook=hook) as listener:
        explanation = await listener.explain(CLIENT)
        assert explanation.is_admitted is None
        assert explanation.stages[-1].verdict is Verdict.UNKNOWN
    assert asked == []


async def test_a_loop_that_lags_refuses() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, max_loop_lag=5) as listener:
        listener._admission.loop_lag_s = 7.0
        explanation = await listener.explain(CLIENT)
        assert explanation.decided_by is not None
        assert "lags 7.000 s" in explanation.decided_by.reason


async def test_connections_in_their_entrance_count_for_load() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True, max_handshaking=1) as listener:
            with connect(listener):
                await until(lambda: listener.stats().entering == 1)
                explanation = await listener.explain(SOURCE, proxy=CLIENT)
                assert explanation.decided_by is not None
                assert explanation.decided_by.reason == "max_handshaking is 1"


async def test_a_unix_client_is_explained_by_its_one_name(tmp_path: Path) -> None:
    async with open_listener("echo", f"unix:{tmp_path / 's'}", echo, access_rules=["deny unix:"]) as listener:
        assert (await listener.explain("unix:")).is_admitted is False


async def test_what_is_no_address_is_an_error_even_where_no_rule_asks_for_it() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener:
        for arguments in (("nobody",), (CLIENT, "nobody"), ("10.0.0.0/8",)):
            with pytest.raises(InvalidOption, match="it takes an IPv4 or IPv6 address"):
                await listener.explain(*arguments)
