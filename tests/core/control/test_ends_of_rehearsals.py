"""How a rehearsal ends: committed as a whole, cancelled, over by itself, or with its listener."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from tests.core.conftest import connect, echo, until
from tests.core.control.conftest import refused, report, served

from esockd_core import Listener, ListenerClosed, RehearsalConflict, open_listener
from esockd_core._admission.shadow import Shadow

if TYPE_CHECKING:
    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler

pytestmark = pytest.mark.anyio


async def test_a_committed_rehearsal_is_live_as_a_whole(control_of: ControlOf) -> None:
    async with (
        open_listener("echo", "127.0.0.1:0", echo, access_rules=["allow 127.0.0.0/8"]) as listener,
        control_of(listener) as control,
    ):
        await control.rehearse("deny 127.0.0.2", "allow 127.0.0.3", max_conn_rate="50/s", max_connections=7)
        told = await control.commit_rehearsal()
        assert (told.state, told.rules) == ("committed", ("deny 127.0.0.2", "allow 127.0.0.3"))
        assert {(change.name, change.new) for change in told.changes} == {
            ("max_connections", 7),
            ("max_conn_rate", "50/s"),
        }
        options = await control.get_options()
        assert (options["max_connections"], options["max_conn_rate"]) == (7, "50/s")
        assert options["access_rules"] == ("deny 127.0.0.2", "allow 127.0.0.3", "allow 127.0.0.0/8")
        with connect(listener, "127.0.0.2") as denied:
            await refused(denied)
        assert listener._site.judge is listener._admission
        with pytest.raises(RehearsalConflict, match="has no rehearsal"):
            await control.commit_rehearsal()


async def test_a_cancelled_rehearsal_changes_nothing_and_is_forgotten(control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        before = await control.get_options()
        await control.rehearse("deny all")
        (await served(listener)).close()
        told = await control.cancel_rehearsal()
        assert (told.state, told.refused) == ("cancelled", {"closed_forbidden": 1})
        assert await control.get_rehearsal() is None
        assert await control.get_options() == before
        with pytest.raises(RehearsalConflict, match="has no rehearsal"):
            await control.cancel_rehearsal()


async def test_nothing_is_asked_more_of_a_client_once_a_rehearsal_is_over(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        site, judge, waiting = listener._site, listener._site.judge, listener._site.waiting
        release = site.registry.release
        await listener.rehearse("deny all")
        assert site.judge is not judge
        open_now = await served(listener)
        await listener.cancel_rehearsal()
        assert (site.judge, site.waiting, site.registry.release) == (judge, waiting, release)
        open_now.close()
        await until(lambda: listener.stats().current_connections == 0)


async def run_out(listener: Listener) -> None:
    """Let the time of a rehearsal be over."""
    rehearsal = listener._rehearsal
    assert rehearsal is not None
    rehearsal.duration = 0.001
    await until(lambda: not rehearsal.is_running)


async def test_a_rehearsal_ends_by_itself_and_can_still_be_committed(
    control_of: ControlOf, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "esockd_core"):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
            await control.rehearse("deny 127.0.0.2")
            (await served(listener, "127.0.0.2")).close()
            await run_out(listener)
            told = await report(control)
            assert (told.state, told.reason, told.remaining) == ("over", "its 0.001 seconds have passed", 0)
            assert told.refused == {"closed_forbidden": 1}
            assert listener._site.judge is listener._admission
            (await served(listener, "127.0.0.2")).close()
            assert (await report(control)) == told
            await control.commit_rehearsal()
            with connect(listener, "127.0.0.2") as denied:
                await refused(denied)
    end = "the rehearsal is over: its 0.001 seconds have passed. It would have refused 1 of 1 clients"
    assert f"listener echo: {end}" in caplog.text


async def test_there_is_one_rehearsal_at_a_time_and_one_that_is_over_makes_room(control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        await control.rehearse("deny all")
        await run_out(listener)
        await control.rehearse(max_connections=5)
        with pytest.raises(RehearsalConflict, match="listener echo has a rehearsal already: commit it or cancel it"):
            await control.rehearse(max_connections=6)
        assert (await report(control)).changes[0].new == 5


async def test_a_rehearsal_survives_a_reopening_and_a_suspension(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        await listener.rehearse("deny 127.0.0.2")
        await listener.reopen("127.0.0.1:0")
        await listener.suspend()
        await listener.resume()
        (await served(listener, "127.0.0.2")).close()
        told = await report(listener)
        assert (told.state, told.refused) == ("running", {"closed_forbidden": 1})


async def test_a_rehearsal_ends_with_its_listener() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        await listener.rehearse("deny all")
    told = await report(listener)
    assert (told.state, told.reason) == ("over", "the listener was closed")
    with pytest.raises(ListenerClosed):
        await listener.commit_rehearsal()
    with pytest.raises(ListenerClosed):
        await listener.rehearse("deny all")


async def test_a_rehearsal_that_fails_hurts_no_client_and_ends(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        await listener.rehearse("deny all")
        monkeypatch.setattr(Shadow, "_allows", lambda *_: 1 / 0)
        (await served(listener)).close()
        told = await report(listener)
        assert (told.state, told.reason) == ("over", "it failed: ZeroDivisionError('division by zero')")
        assert "the rehearsal failed" in caplog.text
        (await served(listener)).close()
        await until(lambda: listener.stats().current_connections == 0)


async def test_a_rehearsal_is_in_the_log_from_its_beginning_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with caplog.at_level(logging.INFO, "esockd_core"):
            await listener.rehearse("deny ::1", max_connections=5, duration=60)
            await listener.cancel_rehearsal()
            await listener.rehearse("deny ::1", max_connections=5)
            await listener.commit_rehearsal()
            lines = [each.getMessage().partition(" by this program: ") for each in caplog.records]
    what = "access_rules: ('deny ::1',) in front; max_connections 1024 -> 5"
    assert [(before.rpartition(" ")[2], told) for before, _, told in lines if told] == [
        ("rehearse", f"rehearsal: none -> {what}, for 60 s"),
        ("cancel_rehearsal", f"rehearsal: {what} -> none"),
        ("rehearse", f"rehearsal: none -> {what}, for 600 s"),
        ("commit_rehearsal", what),
    ]
