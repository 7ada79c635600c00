"""`max_conn_rate` that a server keeps for several listeners: who decides, and what happens without the server."""

from __future__ import annotations

import itertools
import logging
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import answer, connect, echo

from esockd_core import InvalidOption, ListenerOptions, open_listener
from esockd_core._options import shared
from esockd_core._options.plain import plain_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis_server import RedisServer

    from esockd_core import Listener

pytestmark = pytest.mark.anyio
NAMES = itertools.count()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server on a busy machine count as away only where a test has killed it."""
    monkeypatch.setattr(shared, "ANSWER_S", 20.0)


def fresh_name() -> str:
    return f"edge-{next(NAMES)}"


async def knock(listener: Listener) -> bool:
    """Whether one more client is served."""
    with connect(listener) as client:
        try:
            return await answer(client) == b"hello"
        except (ConnectionResetError, BrokenPipeError):
            return False


async def until_admitting(listener: Listener) -> None:
    """Return once a client would be let in."""
    with anyio.fail_after(40):
        while not (await listener.explain("127.0.0.1")).is_admitted:  # noqa: ASYNC110 (a server tells nobody)
            await anyio.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(40):
        while not condition():  # noqa: ASYNC110 (the server of another program)
            await anyio.sleep(0.005)


async def test_listeners_of_one_name_share_a_rate_and_those_of_other_names_have_their_own(
    shared_redis: RedisServer,
) -> None:
    name = fresh_name()
    options: dict[str, Any] = {"shared": shared_redis.url, "shared_when_away": "closed"}
    share: dict[str, Any] = {"max_conn_rate": "0/s burst 6", "shared_lease": 3, **options}
    async with (
        open_listener(name, "127.0.0.1:0", echo, **share) as one,
        open_listener(name, "127.0.0.1:0", echo, **share) as other,
        open_listener(fresh_name(), "127.0.0.1:0", echo, max_conn_rate="0/s burst 1", **options) as third,
    ):
        answers = [await knock(listener) for _ in range(6) for listener in (one, other)]
        assert answers.count(True) == 6
        assert one.stats().closed_rate_limited + other.stats().closed_rate_limited == 6
        assert await knock(third)
        assert not await knock(third)


async def test_what_a_listener_did_not_use_goes_back_when_it_closes(shared_redis: RedisServer) -> None:
    name = fresh_name()
    options: dict[str, Any] = {"shared": shared_redis.url, "max_conn_rate": "0/s burst 4", "shared_lease": 4}
    async with open_listener(name, "127.0.0.1:0", echo, **options) as one:
        assert await knock(one)
    async with open_listener(name, "127.0.0.1:0", echo, **options) as other:
        assert [await knock(other) for _ in range(4)] == [True, True, True, False]


async def test_clients_wait_in_the_backlog_for_tokens_of_a_shared_rate(shared_redis: RedisServer) -> None:
    options: dict[str, Any] = {"max_conn_rate": "100/s burst 2", "when_limited": "backlog"}
    async with open_listener(fresh_name(), "127.0.0.1:0", echo, shared=shared_redis.url, **options) as listener:
        clients = [connect(listener) for _ in range(20)]
        assert [await answer(client) for client in clients] == [b"hello"] * 20
        assert listener.stats().closed_rate_limited == 0
        for client in clients:
            client.close()


async def test_a_rate_comes_to_be_shared_changes_and_is_its_own_again_while_it_runs(shared_redis: RedisServer) -> None:
    name, url = fresh_name(), shared_redis.url
    async with (
        open_listener(name, "127.0.0.1:0", echo, max_conn_rate="0/s burst 2", shared=url, shared_lease=1) as other,
        open_listener(name, "127.0.0.1:0", echo, max_conn_rate="0/s burst 2") as listener,
    ):
        assert [await knock(listener) for _ in range(3)] == [True, True, False]
        plan = await listener.set_options(shared=url)
        assert not plan.needs_reopen
        assert await knock(listener)
        assert not await knock(listener)
        assert await knock(other)  # its lease
        await listener.set_options(max_conn_rate="1000/s")
        await until_admitting(listener)
        assert await knock(listener)
        await listener.set_options(shared=None, max_conn_rate="0/s burst 1")
        assert await knock(listener)
        assert not await knock(listener)


@pytest.mark.parametrize(("when_away", "expected"), [("local", 3), ("closed", 0), ("open", 8)])
async def test_a_listener_opens_and_does_what_was_chosen_while_the_server_is_away_and_shares_again_once_it_is_back(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, when_away: str, expected: int
) -> None:
    own_redis.kill()
    options: dict[str, Any] = {"max_conn_rate": "0/s burst 12", "shared": own_redis.url, "shared_processes": 4}
    options["shared_when_away"] = when_away
    with caplog.at_level(logging.INFO, "esockd_core"):
        async with open_listener("edge", "127.0.0.1:0", echo, **options) as listener:
            assert [await knock(listener) for _ in range(8)].count(True) == expected
            await anyio.to_thread.run_sync(own_redis.start)
            await until(lambda: "answers again" in caplog.text)
            if when_away != "open":
                await until_admitting(listener)
            assert await knock(listener)
    assert caplog.text.count("is away") == 1
    assert caplog.text.count("answers again") == 1


async def test_a_rehearsal_asks_a_shared_rate_nothing_twice_and_cannot_change_it(shared_redis: RedisServer) -> None:
    options: dict[str, Any] = {"max_conn_rate": "0/s burst 4", "shared": shared_redis.url, "shared_lease": 4}
    async with open_listener(fresh_name(), "127.0.0.1:0", echo, **options) as listener:
        with pytest.raises(InvalidOption, match="max_conn_rate: it is shared with other machines"):
            await listener.rehearse(max_conn_rate="1/s burst 4")
        await listener.rehearse("deny 192.0.2.1")
        assert [await knock(listener) for _ in range(5)] == [True, True, True, True, False]
        report = await listener.get_rehearsal()
        assert report is not None
        assert report.newly_refused == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": "redis://h"}, "there is no max_conn_rate to share"),
        ({"shared": "http://h", "max_conn_rate": 1}, "it takes the URL of a Redis or Valkey server"),
        ({"shared": "redis://h:x", "max_conn_rate": 1}, "it takes the URL of a Redis or Valkey server"),
        ({"shared": "redis://h?nothing=1&db=x", "max_conn_rate": 1}, "shared is 'redis://h"),
        (
            {"shared": "redis://h", "max_conn_rate": 1, "shared_lease": 2},
            "shared_lease is 2: it takes at most the burst",
        ),
        ({"shared": "redis://h", "max_conn_rate": 5 / 60}, "max_conn_rate is .*: with a burst of 1 it needs numbers"),
        ({"shared_lease": 2}, "shared_lease is 2: it does nothing without shared"),
    ],
)
def test_values_that_make_no_shared_bucket_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        ListenerOptions(**options)


def test_the_password_of_the_server_is_shown_nowhere() -> None:
    options = ListenerOptions(max_conn_rate=1, shared="rediss://user:secret@h:1/2")
    assert plain_options(options)["shared"] == "rediss://user:***@h:1/2"
    assert "secret" not in repr(options)
    with pytest.raises(InvalidOption) as raised:
        ListenerOptions(shared="redis://:secret@h")
    assert "secret" not in str(raised.value)


def test_without_redis_py_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in list(sys.modules):
        if name.startswith("esockd_ratelimit.redis"):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InvalidOption, match=r'it needs redis-py. Install it: pip install "esockd-core\[redis\]"'):
        ListenerOptions(max_conn_rate=1, shared="redis://h")
