"""Every change made over a control socket is one line of the log: who, what, from what, to what."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import answer, connect, until

from esockd_core import AddressInUse, ControlClient, InvalidOption, ListenerControl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.core.remote.conftest import Controlled

pytestmark = pytest.mark.anyio

WHO = f"by uid {os.geteuid()}, pid {os.getpid()}: "

CHANGES: dict[str, tuple[Callable[[ListenerControl], Awaitable[Any]], str]] = {
    "set_options": (
        lambda control: control.set_options(max_connections=7, tcp={"backlog": 9}),
        "max_connections 1024 -> 7; tcp.backlog 1024 -> 9",
    ),
    "reset_options": (
        lambda control: control.reset_options(idle_timeout=5),
        "access_rules ('allow 127.0.0.1',) -> (); idle_timeout None -> 5",
    ),
    "allow": (lambda control: control.allow("::1"), "access_rules: no rule 'allow ::1' -> the first one"),
    "deny": (lambda control: control.deny("::1"), "access_rules: no rule 'deny ::1' -> the first one"),
    "insert_rule": (lambda control: control.insert_rule(1, "deny ::1"), "no rule 'deny ::1' -> rule 1"),
    "remove_rule": (lambda control: control.remove_rule("allow 127.0.0.1"), "rule 'allow 127.0.0.1' -> none"),
    "replace_rules": (
        lambda control: control.replace_rules("deny all"),
        "access_rules ('allow 127.0.0.1',) -> ('deny all',)",
    ),
    "rehearse": (
        lambda control: control.rehearse("deny ::1", max_connections=5, duration=60),
        "rehearsal: none -> access_rules: ('deny ::1',) in front; max_connections 1024 -> 5, for 60 s",
    ),
    "set_handler": (
        lambda control: control.set_handler("esockd_core.handlers:discard"),
        "handler tests.core.conftest:echo -> esockd_core.handlers:discard",
    ),
    "suspend": (lambda control: control.suspend(), "state running -> suspended"),
    "reopen": (lambda control: control.reopen("127.0.0.2:0"), "addresses ('127.0.0.1:"),
    "kill_connections": (lambda control: control.kill_connections("all"), "1 connections (all): open -> killed"),
    "drain": (lambda control: control.drain(timeout=0.01), "state running -> "),
    "close": (lambda control: control.close(), "state running -> draining"),
    "kill": (lambda control: control.kill(), "state running -> "),
}


@pytest.mark.parametrize("method", CHANGES)
async def test_a_change_is_one_line(method: str, controlled: Controlled, caplog: pytest.LogCaptureFixture) -> None:
    change, told = CHANGES[method]
    async with controlled() as (server, control):
        assert control.path is not None
        listener = server.listener("echo")
        await listener.allow("127.0.0.1")
        with connect(listener) as client:
            assert await answer(client) == b"hello"
            async with ControlClient(control.path) as remote:
                with caplog.at_level(logging.INFO, "esockd_core"):
                    await listener.set_options(shutdown_timeout=0.2)
                    await change(remote.listener("echo"))
                    lines = [record for record in caplog.records if f" {method} by uid " in record.getMessage()]
    [line] = lines
    if method != "set_options":  # which the program itself called, with another option
        assert f" {method} by this program" not in caplog.text
    assert line.levelno == logging.INFO
    assert line.getMessage().startswith(f"listener echo on 127.0.0.{2 if method == 'reopen' else 1}:0: {method} {WHO}")
    assert told in line.getMessage()
    assert vars(line)["listener"] == "echo"


async def test_a_listener_that_takes_its_time_to_drain_is_in_the_log_at_once(
    controlled: Controlled, caplog: pytest.LogCaptureFixture
) -> None:
    async with controlled() as (server, control), anyio.create_task_group() as tasks:
        assert control.path is not None
        with connect(server.listener("echo")) as client:
            assert await answer(client) == b"hello"
            async with ControlClient(control.path) as remote:
                with caplog.at_level(logging.INFO, "esockd_core"):
                    tasks.start_soon(remote.listener("echo").drain, None)
                    await until(lambda: f"drain {WHO}state running -> draining" in caplog.text)
                client.close()
                await until(lambda: not server.listeners())
                tasks.cancel_scope.cancel()


async def test_a_change_that_fails_but_costs_the_listener_its_address_is_a_line(
    controlled: Controlled, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled() as (server, control):
        assert control.path is not None

        async def lose_the_address(*_: object) -> None:
            listener._state = "suspended"
            raise AddressInUse(98, "somebody was quicker")

        listener = server.listener("echo")
        monkeypatch.setattr(listener, "_replace_sockets", lose_the_address)
        async with ControlClient(control.path) as remote:
            with caplog.at_level(logging.INFO, "esockd_core"), pytest.raises(AddressInUse, match="quicker"):
                await remote.listener("echo").reopen()
    assert f"failed reopen {WHO}state running -> suspended" in caplog.text


async def test_what_changes_nothing_is_no_line(controlled: Controlled, caplog: pytest.LogCaptureFixture) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as remote:
            listener = remote.listener("echo")
            with caplog.at_level(logging.INFO, "esockd_core"):
                await listener.set_options(max_connections=1024)
                await listener.resume()
                await listener.kill_connections("all")
                assert not await listener.kill_connection(10**9)
                await listener.get_stats()
                await listener.plan_options(max_connections=5)
                for wrong in (listener.deny("x"), listener.set_options(acceptors=0), listener.drain(-1)):
                    with pytest.raises(InvalidOption):
                        await wrong
    assert " by uid " not in caplog.text


async def test_no_secret_is_in_the_log(controlled: Controlled, caplog: pytest.LogCaptureFixture) -> None:
    async with controlled() as (_, control):
        assert control.path is not None
        async with ControlClient(control.path) as remote:
            with caplog.at_level(logging.DEBUG, "esockd_core"), pytest.raises(InvalidOption) as caught:
                await remote.listener("echo").set_options(tls={"certfile": "none.pem", "password": "hunter2"})
    assert "hunter2" not in caplog.text
    assert "hunter2" not in str(caught.value)
