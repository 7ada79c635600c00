"""Rehearsing a change: every real client is judged by it, nobody is refused, and a commit makes exactly it live."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import HEADER, answer, connect, connect_stream, echo, rest, until
from tests.core.control.conftest import refused, served
from tests.core.datagrams.udp import Client
from tests.core.datagrams.udp import echo as udp_echo

from esockd_core import (
    InvalidOption,
    Listener,
    ListenerClosed,
    ListenerControl,
    OptionChange,
    ProxyOptions,
    RehearsalConflict,
    RehearsalReport,
    RehearsedRefusal,
    RehearsedSource,
    TlsOptions,
    open_listener,
)
from esockd_core._admission.shadow import Shadow
from esockd_ratelimit import TokenBucket

if TYPE_CHECKING:
    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler

pytestmark = pytest.mark.anyio


async def report(control: ListenerControl) -> RehearsalReport:
    found = await control.get_rehearsal()
    assert found is not None
    return found


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


async def test_a_commit_never_switches_headers_on_that_were_switched_off_meanwhile() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener:
        await listener.rehearse(proxy_protocol={"trusted": ["127.0.0.1"]})
        await listener.set_options(proxy_protocol=False)
        assert (await report(listener)).state == "over"
        with pytest.raises(InvalidOption, match="proxy_protocol: it cannot be rehearsed"):
            await listener.commit_rehearsal()
        assert (await listener.get_options())["proxy_protocol"] is False


async def test_headers_that_are_switched_on_meanwhile_are_judged_as_they_come() -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener:
            await listener.rehearse("deny 192.0.2.99")
            (await served(listener)).close()
            await listener.deny("127.0.0.0/8")
            await listener.set_options(proxy_protocol=ProxyOptions(access_rules_on="both"))
            with connect(listener) as denied:
                await refused(denied)
            await listener.remove_rule("deny 127.0.0.0/8")
            async with await connect_stream(listener) as client:
                await client.send(HEADER + b"hello")
                assert await client.receive() == b"hello"
            told = await report(listener)
    assert (told.state, told.seen, told.refused) == ("running", 3, {"closed_forbidden": 1})


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


async def test_behind_a_proxy_both_the_proxy_and_the_client_of_its_header_are_judged(handler: Handler) -> None:
    proxy = ProxyOptions(trusted=["127.0.0.0/8"])
    told: RehearsalReport | None = None
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler, proxy_protocol=proxy) as listener:
            await listener.rehearse(
                "deny 192.0.2.0/24", proxy_protocol={"trusted": ["127.0.0.1", "127.0.0.3"]}, max_connections=1
            )
            for source in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
                async with await connect_stream(listener, source) as client:
                    await client.send(HEADER + b"hello")
                    assert await client.receive() == b"hello"
                    told = await report(listener)
                await until(lambda: listener.stats().current_connections == 0)
            assert told is not None
            assert (told.seen, told.refused) == (3, {"source_forbidden": 2, "closed_forbidden": 1})
            assert told.newly_refused == told.refused
            assert [each.client[0] for each in told.examples] == ["192.0.2.7", "127.0.0.2", "192.0.2.7"]
            assert told.examples[1].reason == "it is not a trusted proxy"
            await listener.commit_rehearsal()
            assert (await listener.get_options())["proxy_protocol.trusted"] == ("127.0.0.1", "127.0.0.3")
            async with await connect_stream(listener) as client:
                await client.send(HEADER)
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()
    assert listener.stats().shutdown_counts["source_forbidden"] == 1


async def test_a_client_of_a_proxy_that_is_refused_anyway_is_not_newly_refused() -> None:
    proxy = ProxyOptions(trusted=["127.0.0.0/8"])
    rules = ["deny 192.0.2.0/24"]
    async with open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=proxy, access_rules=rules) as listener:
        await listener.rehearse(proxy_protocol={"trusted": ["127.0.0.9"]})
        async with await connect_stream(listener) as client:
            await client.send(HEADER)
            with pytest.raises(anyio.EndOfStream):
                await client.receive()
        told = await report(listener)
    assert (told.refused, told.newly_refused) == ({"closed_forbidden": 1}, {})


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
        monkeypatch.setattr(Shadow, "_ask_denials", lambda *_: 1 / 0)
        (await served(listener)).close()
        told = await report(listener)
        assert (told.state, told.reason) == ("over", "it failed: ZeroDivisionError('division by zero')")
        assert "the rehearsal failed" in caplog.text
        (await served(listener)).close()
        await until(lambda: listener.stats().current_connections == 0)


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
