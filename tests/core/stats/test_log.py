"""Logs that clients can cause at will stay bounded, and say what they are about."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import connect, rest, until

from esockd_core import StreamConnection, open_listener
from esockd_core._stats.log import ListenerLog
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from esockd_core import Listener


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_flood_of_one_kind_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    log = ListenerLog("echo", clock)
    for number in range(25):
        log.say(logging.ERROR, "it failed: %d", number)
    log.say(logging.ERROR, "another thing")
    assert lines(caplog) == [f"listener echo: it failed: {number}" for number in range(10)] + [
        "listener echo: another thing"
    ]
    caplog.clear()
    log.tell_left_out()
    assert lines(caplog) == []
    clock.advance(1)
    log.tell_left_out()
    log.tell_left_out()
    assert lines(caplog) == ['listener echo: 15 more lines like "it failed: %d" were left out']
    assert caplog.records[0].levelno == logging.ERROR


def test_what_was_left_out_is_told_at_the_end_at_the_latest(caplog: pytest.LogCaptureFixture) -> None:
    log = ListenerLog("echo", FakeClock())
    for _ in range(12):
        log.say(logging.WARNING, "refused")
    caplog.clear()
    log.tell_left_out(is_end=True)
    assert lines(caplog) == ['listener echo: 2 more lines like "refused" were left out']


def test_what_nobody_listens_to_is_not_counted_as_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log = ListenerLog("echo", FakeClock())
    with caplog.at_level(logging.ERROR, "esockd_core"):
        for _ in range(25):
            log.say(logging.INFO, "it happened")
        log.tell_left_out()
    assert lines(caplog) == []


def test_a_record_says_which_peer_and_why(caplog: pytest.LogCaptureFixture) -> None:
    ListenerLog("echo", FakeClock()).say(logging.ERROR, "no", peer=("192.0.2.1", 5), reason="tls_failed")
    fields = vars(caplog.records[0])
    assert (fields["listener"], fields["peer"], fields["reason"]) == ("echo", ("192.0.2.1", 5), "tls_failed")


@pytest.mark.anyio
async def test_handlers_that_fail_by_the_dozen_are_all_counted_and_few_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: StreamConnection) -> None:
        raise LookupError("nothing there")

    async def be_served(listener: Listener) -> None:
        with connect(listener) as client:
            await rest(client)

    with anyio.fail_after(20):
        async with open_listener("fail", "127.0.0.1:0", fail) as listener:
            for _ in range(30):
                await be_served(listener)
            await until(lambda: listener.stats().shutdown_counts == {"handler_error": 30})
            await until(lambda: any("left out" in line for line in lines(caplog)))
    failures = [record for record in caplog.records if "nothing there" in record.getMessage()]
    assert 10 <= len(failures) < 30
    assert vars(failures[0])["connection_id"] > 0
    assert vars(failures[0])["peer"][0] == "127.0.0.1"
    assert failures[0].exc_info is not None
