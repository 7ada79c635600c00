"""What is told of refused clients: in the counters, in the ring of refusals and in the log."""

from __future__ import annotations

import logging
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from tests.core.conftest import connect, echo, rest, until

from esockd_core import Refused, open_listener

if TYPE_CHECKING:
    from esockd_core import Listener

pytestmark = pytest.mark.anyio


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def be_refused(listener: Listener, clients: int = 1) -> None:
    for _ in range(clients):
        with connect(listener) as client:
            assert await rest(client) == b""


async def test_port_checks_that_reset_are_no_refusals_and_push_none_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esockd_core")
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny all"], tcp={"backlog": 400}) as listener:
        await be_refused(listener)
        await listener.suspend()
        for _ in range(300):
            reset(connect(listener))
        await listener.resume()
        await until(lambda: listener.stats().closed_early == 300)
        assert [refusal.stage for refusal in listener.refusals] == [Refused.FORBIDDEN]
        assert listener.stats().refused == 1
    assert not [record for record in caplog.records if "closed_early" in record.getMessage()]


async def test_a_refusal_is_an_info_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esockd_core")
    async with open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 127.0.0.1"]) as listener:
        await be_refused(listener)
        (refusal,) = listener.refusals
    (record,) = [record for record in caplog.records if "refused" in record.getMessage()]
    assert record.getMessage() == f"listener echo: refused {refusal.peer} (closed_forbidden): {refusal.reason}"
    assert record.levelno == logging.INFO
    assert record.__dict__["peer"] == refusal.peer
    assert record.__dict__["reason"] == "closed_forbidden"


async def test_many_refusals_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esockd_core")
    async with open_listener("echo", "127.0.0.1:0", echo, max_conn_rate="1/day") as listener:
        await be_refused_by_rate(listener, 100)
        assert listener.stats().refused == 100
        told = sum("refused" in record.getMessage() for record in caplog.records)
        assert told < 50  # ten at once, one a second, and what was left out


async def be_refused_by_rate(listener: Listener, clients: int) -> None:
    with connect(listener):
        await until(lambda: listener.stats().accepted == 1)
        await be_refused(listener, clients)
