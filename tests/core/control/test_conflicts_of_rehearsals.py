"""What cannot be rehearsed, and what somebody else changes while a rehearsal runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, rest, until
from tests.core.control.conftest import refused, report, served

from esockd_core import InvalidOption, Listener, RehearsalConflict, open_listener
from esockd_ratelimit import TokenBucket

if TYPE_CHECKING:
    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler

pytestmark = pytest.mark.anyio

WRONG: dict[str, Any] = {
    "nothing": (lambda control: control.rehearse(), "changes", "takes rules or options"),
    "no rule": (lambda control: control.rehearse("deny"), "rules", "deny"),
    "twice": (lambda control: control.rehearse("deny all", "deny all"), "rules", "deny all"),
    "there already": (lambda control: control.rehearse("deny 10.0.0.0/8"), "rules", "have it already"),
    "no option": (lambda control: control.rehearse(max_conections=1), "max_conections", "max_connections"),
    "of timeouts": (lambda control: control.rehearse(idle_timeout=1), "idle_timeout", "cannot be rehearsed"),
    "of sockets": (lambda control: control.rehearse(tcp={"backlog": 5}), "tcp.backlog", "cannot be rehearsed"),
    "headers": (lambda control: control.rehearse(proxy_protocol=True), "proxy_protocol", "cannot be rehearsed"),
    "out of bounds": (lambda control: control.rehearse(max_connections=0), "max_connections", "1 or more"),
    "no time": (lambda control: control.rehearse("deny all", duration=0), "duration", "more than 0"),
    "for ever": (lambda control: control.rehearse("deny all", duration=1e9), "duration", "at most 604800"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_what_cannot_be_rehearsed_is_an_error_that_says_what_can(mistake: str, control_of: ControlOf) -> None:
    call, option, told = WRONG[mistake]
    async with (
        open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 10.0.0.0/8"]) as listener,
        control_of(listener) as control,
    ):
        with pytest.raises(InvalidOption, match=told) as caught:
            await call(control)
        assert caught.value.option == option
        assert await control.get_rehearsal() is None
        assert listener._site.judge is listener._admission


async def test_other_changes_hold_for_the_rehearsal_too(control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        await control.rehearse("allow 127.0.0.3", max_connections_per_source=2)
        await control.set_options(max_connections=3)
        await control.deny("127.0.0.0/8")
        listener.access_rules.remove("deny 127.0.0.0/8")  # by the program, past every method
        await control.deny("127.0.0.4")
        kept = [await served(listener, source) for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3")]
        for source in ("127.0.0.4", "127.0.0.3"):
            with connect(listener, source) as client:
                await refused(client)
        told = await report(control)
        assert (told.refused, told.newly_refused) == ({"closed_forbidden": 1, "closed_max_limit": 1}, {})
        await control.commit_rehearsal()
        assert (await control.get_access_rules()).rules == ("allow 127.0.0.3", "deny 127.0.0.4")
        assert (await control.get_options())["max_connections"] == 3
        for client in kept:
            client.close()


CONFLICTS: dict[str, Any] = {
    "option": (
        lambda control: control.set_options(max_connections=9),
        "max_connections was changed from 1024 to 9 since the rehearsal began: rehearse again, or cancel it",
    ),
    "same rule": (lambda control: control.deny("127.0.0.2"), 'the rule "deny 127.0.0.2" was put in since'),
}


@pytest.mark.parametrize("conflict", CONFLICTS)
async def test_what_somebody_else_has_set_meanwhile_is_not_overwritten(conflict: str, control_of: ControlOf) -> None:
    change, told = CONFLICTS[conflict]
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        await control.rehearse("deny 127.0.0.2", max_connections=5, max_conn_rate="7/s")
        await change(control)
        before = await control.get_options()
        with pytest.raises(RehearsalConflict, match=told):
            await control.commit_rehearsal()
        assert await control.get_options() == before
        assert (await report(control)).state == "running"


async def test_rules_that_are_replaced_as_a_whole_must_be_those_of_the_beginning() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["allow 127.0.0.1"]) as listener:
        await listener.rehearse("allow 127.0.0.1", access_rules=["deny 127.0.0.2"])
        await listener.deny("127.0.0.3")
        with pytest.raises(RehearsalConflict, match="the access rules were changed since the rehearsal began"):
            await listener.commit_rehearsal()
        await listener.remove_rule("deny 127.0.0.3")
        await listener.commit_rehearsal()
        assert [str(rule) for rule in listener.access_rules] == ["allow 127.0.0.1", "deny 127.0.0.2"]


async def test_a_change_that_somebody_else_has_made_as_well_is_no_conflict() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        await listener.rehearse(max_connections=5, max_conn_rate="7/s")
        await listener.set_options(max_connections=5)
        assert [change.name for change in (await listener.commit_rehearsal()).changes] == ["max_conn_rate"]


async def test_a_rehearsal_ends_when_its_changes_do_not_fit_the_options_any_more() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        await listener.rehearse(max_conn_rate="7/s")
        await listener.set_options(limiter=TokenBucket("5/s"))
        told = await report(listener)
        assert told.state == "over"
        assert (told.reason or "").startswith("the options were changed, and it does not fit any more: limiter and")
        with pytest.raises(InvalidOption, match="both given"):
            await listener.commit_rehearsal()
        assert listener._site.judge is listener._admission


async def test_changes_of_one_listener_and_its_rehearsal_come_one_after_the_other(handler: Handler) -> None:
    async def change(listener: Listener, number: int) -> None:
        await listener.set_options(max_conn_rate=1000 + number)
        try:
            await listener.rehearse(max_connections=10 + number)
            await listener.commit_rehearsal()
        except RehearsalConflict:
            pass

    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(change, listener, number)
                tasks.start_soon(_come_and_go, listener)
        if listener._rehearsal is not None:
            await listener.cancel_rehearsal()
        assert listener._site.judge is listener._admission
        await until(lambda: listener.stats().current_connections == 0)
        assert listener.stats().refused == 0


async def _come_and_go(listener: Listener) -> None:
    with connect(listener) as client:
        assert await answer(client) == b"hello"
        client.shutdown(1)
        assert await rest(client) == b""
