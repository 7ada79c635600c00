"""The table of reasons: bounded, whatever handlers invent, and exact about the reasons of this package."""

from __future__ import annotations

import pytest
from tests.core.conftest import connect, reasons

from esockd_core import StreamConnection, open_listener
from esockd_core._stats import reasons as words
from esockd_core._stats.counters import MAX_INVENTED_REASONS, Counters
from esockd_core._stats.reasons import OWN_REASONS


def test_reasons_of_this_package_keep_their_counters_however_many_handlers_invent() -> None:
    counters = Counters()
    for number in range(MAX_INVENTED_REASONS + 8):
        counters.count_end(f"invented {number}")
    counters.count_end("invented 0")
    for reason in OWN_REASONS:
        counters.count_end(reason)
    counts = counters.shutdown_counts
    assert counts["other"] == 8
    assert counts["invented 0"] == 2
    assert len(counts) == MAX_INVENTED_REASONS + 1 + len(OWN_REASONS)
    assert {reason for reason in OWN_REASONS if counts[reason] != 1} == set()


def test_every_reason_of_this_package_is_known_as_one() -> None:
    assert {value for name, value in vars(words).items() if name.isupper() and isinstance(value, str)} <= OWN_REASONS


@pytest.mark.anyio
async def test_a_handler_that_invents_reasons_hides_no_other_end() -> None:
    async def invent(connection: StreamConnection) -> None:
        name = (await connection.receive()).decode()
        if name == "fail":
            raise ValueError(name)
        connection.close_nowait(name)

    async with open_listener("echo", "127.0.0.1:0", invent) as listener:
        for number in range(MAX_INVENTED_REASONS + 2):
            with connect(listener) as client:
                client.send(b"reason %d" % number)
            await reasons(listener, number + 1)
        with connect(listener) as client:
            client.send(b"fail")
        counted = await reasons(listener, MAX_INVENTED_REASONS + 3)
    assert (counted["other"], counted["handler_error"]) == (2, 1)
