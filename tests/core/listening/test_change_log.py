"""Live changes that the program itself makes are in the log: once each, with what was and what is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.conftest import answer, connect, echo, until

from esockd_core import InvalidOption, ListenerControl, open_listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

CHANGES: dict[str, tuple[Callable[[ListenerControl], Awaitable[Any]], str]] = {
    "set_options": (lambda control: control.set_options(max_connections=7), "max_connections 1024 -> 7"),
    "reset_options": (lambda control: control.reset_options(idle_timeout=5), "idle_timeout None -> 5"),
    "allow": (lambda control: control.allow("::1"), "access_rules: no rule 'allow ::1' -> the first one"),
    "deny": (lambda control: control.deny("::1"), "access_rules: no rule 'deny ::1' -> the first one"),
    "insert_rule": (lambda control: control.insert_rule(0, "deny ::1"), "no rule 'deny ::1' -> rule 0"),
    "remove_rule": (lambda control: control.remove_rule("allow 127.0.0.1"), "rule 'allow 127.0.0.1' -> none"),
    "replace_rules": (lambda control: control.replace_rules("deny all"), "('allow 127.0.0.1',) -> ('deny all',)"),
    "set_handler": (
        lambda control: control.set_handler("esockd_core.handlers:discard"),
        "handler tests.core.conftest:echo -> esockd_core.handlers:discard",
    ),
    "suspend": (lambda control: control.suspend(), "state running -> suspended"),
    "reopen": (lambda control: control.reopen("127.0.0.2:0"), "addresses ('127.0.0.1:"),
    "kill_connections": (lambda control: control.kill_connections("all"), "1 connections (all): open -> killed"),
}


@pytest.mark.parametrize("method", CHANGES)
async def test_a_change_is_one_line(method: str, caplog: pytest.LogCaptureFixture) -> None:
    change, told = CHANGES[method]
    async with open_listener(
        "echo", "127.0.0.1:0", echo, access_rules=["allow 127.0.0.1"], shutdown_timeout=0
    ) as listener:
        with connect(listener) as client:
            assert await answer(client) == b"hello"
            with caplog.at_level(logging.INFO, "esockd_core"):
                await change(listener)
                lines = [record for record in caplog.records if " by this program: " in record.getMessage()]
    [line] = lines
    assert line.levelno == logging.INFO
    assert line.getMessage().startswith(f"listener echo: {method} by this program: ")
    assert told in line.getMessage()
    assert vars(line)["listener"] == "echo"


async def test_what_changes_nothing_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with caplog.at_level(logging.INFO, "esockd_core"):
            await listener.set_options(max_connections=1024)
            await listener.resume()
            await listener.kill_connections("all")
            assert not await listener.kill_connection(10**9)
            with pytest.raises(InvalidOption):
                await listener.deny("x")
    assert " by this program" not in caplog.text


async def test_a_program_that_bans_every_client_does_not_flood_its_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the bans nor the clients that they refuse fill it, and other changes are told all the same."""
    async with open_listener("echo", "127.0.0.1:0", echo, max_connections=99) as listener:
        with caplog.at_level(logging.INFO, "esockd_core"):
            await listener.deny("127.0.0.1")
            for number in range(200):
                await listener.deny(f"192.0.2.{number}")
                connect(listener).close()
            await listener.set_options(max_connections=7)
            await until(lambda: listener.stats().closed_forbidden + listener.stats().closed_early == 200)
    told = [record.getMessage() for record in caplog.records]
    bans = [line for line in told if "deny by this program" in line]
    assert bans[0] == "listener echo: deny by this program: access_rules: no rule 'deny 127.0.0.1' -> the first one"
    assert "listener echo: set_options by this program: max_connections 99 -> 7" in told
    assert len(told) < 60  # of each kind ten at once, then one a second
