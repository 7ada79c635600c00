"""Rehearsing a change: every real client is judged by it, and nobody is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import connect, connect_stream, echo, until
from tests.core.control.conftest import refused, report, served
from tests.core.datagrams.udp import Client
from tests.core.datagrams.udp import echo as udp_echo

from esockd_core import OptionChange, RehearsalReport, RehearsedRefusal, RehearsedSource, TlsOptions, open_listener

if TYPE_CHECKING:
    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler

pytestmark = pytest.mark.anyio


async def test_a_rehearsal_refuses_nobody_and_tells_whom_the_change_would_refuse(
    handler: Handler, control_of: ControlOf
) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, control_of(listener) as control:
            (await served(listener)).close()
            await until(lambda: listener.stats().current_connections == 0)
            first = await control.rehearse("deny 127.0.0.2", max_connections=2)
            assert (first.state, first.seen, first.rules) == ("running", 0, ("deny 127.0.0.2",))
            assert [(change.name, change.old, change.new) for change in first.changes] == [("max_connections", 1024, 2)]
            assert (first.duration, 599 < first.remaining <= 600) == (600, True)
            clients = [await served(listener, source) for source in ("127.0.0.2", *["127.0.0.1"] * 4)]
            told = await report(control)
            for client in clients:
                client.close()
    assert listener.stats().refused == 0
    assert (told.seen, told.refused) == (5, {"closed_forbidden": 1, "closed_max_limit": 2})
    assert told.newly_refused == told.refused
    assert (told.newly_admitted, told.waiting) == ({}, 0)
    assert [(each.stage, each.reason) for each in told.examples] == [
        ("closed_forbidden", "access rule 0: deny 127.0.0.2"),
        ("closed_max_limit", "max_connections is 2"),
        ("closed_max_limit", "max_connections is 2"),
    ]
    assert [each.client[0] for each in told.examples] == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]
    assert told.top_sources == (RehearsedSource("127.0.0.1", 2), RehearsedSource("127.0.0.2", 1))


async def test_clients_that_end_give_back_their_places_in_the_rehearsal(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        async with await connect_stream(listener), await connect_stream(listener):
            await until(lambda: listener.stats().current_connections == 2)
            await listener.rehearse(max_connections=3, max_connections_per_source=3)
            (await served(listener)).close()  # the third
            await until(lambda: listener.stats().current_connections == 2)
            third, fourth = await served(listener), await served(listener)
            assert (await report(listener)).refused == {"closed_max_limit": 1}
            fourth.close()  # held no place
            await until(lambda: listener.stats().current_connections == 3)
            (await served(listener)).close()
            assert (await report(listener)).refused == {"closed_max_limit": 2}
            third.close()
        await until(lambda: listener.stats().current_connections == 0)
        (await served(listener)).close()
        assert (await report(listener)).refused == {"closed_max_limit": 2}


async def test_whom_the_change_would_let_in_is_counted_too() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, access_rules=["deny 127.0.0.0/8"], max_conn_rate="1000/s"
    ) as listener:
        await listener.rehearse("allow 127.0.0.2", "deny 127.0.0.3")
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            with connect(listener, source) as client:
                await refused(client)
        told = await report(listener)
    assert (told.seen, told.refused) == (3, {"closed_forbidden": 2})
    assert (told.newly_refused, told.newly_admitted) == ({}, {"closed_forbidden": 1})
    assert (told.examples, told.top_sources) == ((), ())


@pytest.mark.parametrize(
    ("changes", "refused_as"),
    [
        ({"max_conn_rate": "0.001/s"}, "closed_rate_limited"),
        ({"max_conn_rate_per_source": "0.001/s"}, "closed_rate_limited"),
        ({"max_connections_per_source": 1}, "closed_max_limit"),
        ({"access_rules": ["allow 127.0.0.9", "deny all"]}, "closed_forbidden"),
    ],
)
async def test_each_stage_is_rehearsed(changes: dict[str, Any], refused_as: str, control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        await control.rehearse(**changes)
        one, other = await served(listener), await served(listener)
        told = await report(control)
        assert told.refused == {refused_as: 2 if "access_rules" in changes else 1}
        one.close()
        other.close()
        await control.commit_rehearsal()
        assert await control.get_rehearsal() is None
        (await served(listener, "127.0.0.9")).close()


class CountingLimiter:
    """Lets every second one in."""

    asked = 0

    def try_acquire(self) -> bool:
        self.asked += 1
        return self.asked % 2 == 1

    def wait_time(self) -> float:
        return 0.0


async def test_the_programs_own_limiter_and_hook_are_asked_once_for_each_client() -> None:
    hooked: list[object] = []

    def hook(peer: object) -> bool:
        hooked.append(peer)
        return len(hooked) != 2

    limiter = CountingLimiter()
    async with open_listener("echo", "127.0.0.1:0", echo, limiter=limiter, load_hook=hook) as listener:
        await listener.rehearse("deny 127.0.0.2")
        (await served(listener)).close()
        for _ in range(2):  # the limiter's no, and the hook's
            with connect(listener) as client:
                await refused(client)
        with connect(listener, "127.0.0.2") as client:
            await refused(client)
        (await served(listener)).close()
        told = await report(listener)
    assert (limiter.asked, len(hooked)) == (5, 3)
    assert told.refused == {"closed_rate_limited": 1, "closed_overloaded": 1, "closed_forbidden": 1}
    assert (told.newly_refused, told.newly_admitted) == ({}, {})


async def test_a_client_that_would_wait_in_the_backlog_is_not_counted_as_refused() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, when_full="backlog", when_limited="backlog", max_conn_rate="1000/s"
    ) as listener:
        await listener.rehearse(max_connections=1)
        one, other = await served(listener), await served(listener)
        told = await listener.cancel_rehearsal()
        assert (told.seen, told.waiting, told.refused) == (2, 1, {})
        other.close()
        await until(lambda: listener.stats().current_connections == 1)
        await listener.rehearse(max_conn_rate="0.001/s")
        (await served(listener)).close()
        (await served(listener)).close()
        assert (await report(listener)).waiting >= 1
        one.close()


async def test_fewer_handshakes_at_once_are_rehearsed(handler: Handler, tls: TlsOptions) -> None:
    """A quarter of `max_connections` may be in their entrance, and with it changes that number."""
    with anyio.fail_after(20):
        async with open_listener("echo", "tls://127.0.0.1:0", handler, tls=tls) as listener:
            await listener.rehearse(max_connections=8)
            with connect(listener), connect(listener):  # they stall
                await until(lambda: listener.stats().entering == 2)
                with connect(listener):
                    await until(lambda: listener.stats().entering == 3)
                    told = await report(listener)
                await until(lambda: listener.stats().entering == 2)
                with connect(listener):  # it would be refused as well, and the one before holds no place
                    await until(lambda: listener.stats().entering == 3)
                    assert (await report(listener)).refused == {"closed_overloaded": 2}
            assert [each.reason for each in told.examples] == ["max_handshaking is 2"]
            await until(lambda: listener.stats().current_connections == 0)
            with connect(listener):
                await until(lambda: listener.stats().entering == 1)
            assert (await report(listener)).refused == {"closed_overloaded": 2}


async def test_peers_of_datagrams_are_rehearsed_when_they_first_come() -> None:
    async with open_listener("echo", "udp://127.0.0.1:0", udp_echo) as listener:
        await listener.rehearse("deny 127.0.0.2", max_connections=1)
        with Client(listener) as one, Client(listener, source="127.0.0.2") as two, Client(listener) as three:
            for client in (one, two, three, two):
                assert await client.ask(b"hello") == b"hello"
            told = await listener.commit_rehearsal()
            assert (told.seen, told.refused) == (3, {"closed_forbidden": 1, "closed_max_limit": 1})


async def test_a_flood_of_clients_takes_no_more_room_than_a_few(control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        await control.rehearse("deny 127.0.0.0/9", max_connections=1)
        for number in range(2, 40):
            (await served(listener, f"127.0.0.{number}")).close()
        told = await report(control)
        assert told.refused == {"closed_forbidden": 38}
        assert (len(told.examples), len(told.top_sources)) == (5, 10)
        await until(lambda: listener.stats().current_connections == 0)
        assert listener._rehearsal is not None
        assert listener._rehearsal.shadow._absent == {}


async def test_a_report_survives_a_round_trip_through_json() -> None:
    whole = RehearsalReport(
        rules=("deny ::1",),
        changes=(OptionChange("max_connections", 5, None, "live"),),  # type: ignore[arg-type]
        state="running",
        reason=None,
        started_at=1.5,
        duration=600,
        elapsed=2.5,
        seen=7,
        refused={"closed_forbidden": 1, "source_max_limit": 1},
        newly_refused={"closed_forbidden": 1},
        newly_admitted={"closed_rate_limited": 2},
        waiting=3,
        examples=(RehearsedRefusal(("::1", 5), "closed_forbidden", "access rule 0: deny ::1", 3.5),),
        top_sources=(RehearsedSource("2001:db8::/64", 1),),
    )
    shown = whole.as_dict()
    assert shown["remaining"] == 597.5
    assert RehearsalReport.from_dict(json.loads(json.dumps(shown))) == whole
