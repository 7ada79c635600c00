"""`ListenerControl`, the one interface to look at a listener and to change it: every change, by its effect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, rest
from tests.core.control.conftest import refused, served
from tests.ports import steady_address

from esockd_cidr import AccessList
from esockd_core import (
    AddressInUse,
    CallbackHandler,
    InvalidOption,
    Listener,
    ListenerControl,
    OptionPlan,
    OptionsView,
    RuleDecision,
    RulesView,
    Server,
    StreamConnection,
    TcpOptions,
    open_listener,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


def is_a_control(listener: Listener) -> ListenerControl:
    """What the type checker is asked."""
    return listener


async def test_a_listener_is_its_own_control(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        assert is_a_control(listener) is listener


async def test_rules_are_listed_and_changed_live(handler: Handler, control_of: ControlOf) -> None:
    """esockd's t_allow_deny: what is added at run time comes first."""
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, access_rules=["allow 192.168.1.0/24"]) as listener,
            control_of(listener) as control,
        ):
            await control.allow("10.10.0.0/16")
            await control.deny("127.0.0.2")
            await control.insert_rule(1, "deny 172.16.0.0/12")
            rules = ("deny 127.0.0.2", "deny 172.16.0.0/12", "allow 10.10.0.0/16", "allow 192.168.1.0/24")
            assert await control.get_access_rules() == RulesView(rules, "allow")
            with connect(listener, "127.0.0.2") as denied:
                await refused(denied)
            assert await control.test_rules("172.16.5.5") == RuleDecision("deny", "deny 172.16.0.0/12", 1)
            assert await control.test_rules("203.0.113.1") == RuleDecision("allow", None, None)
            await control.remove_rule("deny 127.0.0.2")
            (await served(listener, "127.0.0.2")).close()
            await control.replace_rules("allow 127.0.0.1", "deny all")
            assert [str(rule) for rule in listener.access_rules] == ["allow 127.0.0.1", "deny all"]


BAD_ARGUMENTS: dict[str, tuple[Callable[[ListenerControl], Awaitable[object]], str, object]] = {
    "allow": (lambda control: control.allow("10.0.0.0/33"), "network", "10.0.0.0/33"),
    "deny": (lambda control: control.deny("x"), "network", "x"),
    "deny again": (lambda control: control.deny("10.0.0.0/8"), "network", "10.0.0.0/8"),
    "insert_rule beyond": (lambda control: control.insert_rule(9, "deny all"), "index", 9),
    "insert_rule": (lambda control: control.insert_rule(0, "deny"), "rule", "deny"),
    "remove_rule": (lambda control: control.remove_rule("allow all"), "rule", "allow all"),
    "replace_rules": (lambda control: control.replace_rules("deny all", "oops"), "rules", ("deny all", "oops")),
    "test_rules": (lambda control: control.test_rules("nobody"), "address", "nobody"),
    "explain": (lambda control: control.explain("nobody"), "address", "nobody"),
    "explain through": (lambda control: control.explain("::1", "nobody"), "proxy", "nobody"),
    "list_connections": (lambda control: control.list_connections("x"), "network", "x"),
    "list_connections limit": (lambda control: control.list_connections(limit=0), "limit", 0),
    "kill_connections": (lambda control: control.kill_connections("x"), "network", "x"),
    "get_top_sources": (lambda control: control.get_top_sources(0), "most", 0),
    "set_handler": (lambda control: control.set_handler("nowhere:at_all"), "handler", "nowhere:at_all"),
}


@pytest.mark.parametrize("mistake", BAD_ARGUMENTS)
async def test_every_bad_argument_is_an_invalid_option_that_names_it_and_changes_nothing(
    mistake: str, control_of: ControlOf
) -> None:
    call, option, value = BAD_ARGUMENTS[mistake]
    async with (
        open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 10.0.0.0/8"]) as listener,
        control_of(listener) as control,
    ):
        before = await control.get_access_rules()
        with pytest.raises(InvalidOption) as caught:
            await call(listener)
        assert (caught.value.option, caught.value.value) == (option, value)
        assert await control.get_access_rules() == before


async def test_rules_that_allow_nobody_by_default_say_so(control_of: ControlOf) -> None:
    async with (
        open_listener("echo", "127.0.0.1:0", echo, access_rules=AccessList([], "deny")) as listener,
        control_of(listener) as control,
    ):
        assert await control.get_access_rules() == RulesView((), "deny")
        assert await control.test_rules("127.0.0.1") == RuleDecision("deny", None, None)


class Farewell(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(b"bye")
        connection.close_nowait()


async def test_a_handler_is_exchanged_by_the_place_where_it_is_found(control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        assert (await control.get_status()).handler == "tests.core.conftest:echo"
        await control.set_handler("esockd_core.handlers:discard")
        assert (await control.get_status()).handler == "esockd_core.handlers:discard"
        await listener.set_handler(Farewell())
        assert (await control.get_status()).handler.endswith(":Farewell")
        with connect(listener) as client:
            assert await rest(client) == b"bye"


@pytest.mark.parametrize("place", ["esockd_core.handlers", ":echo", "os.path:sep", "esockd_core.handlers:none.such"])
async def test_what_is_no_handler_is_refused_and_the_old_one_stays(place: str, control_of: ControlOf) -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        with pytest.raises(InvalidOption) as caught:
            await control.set_handler(place)
        assert (caught.value.option, caught.value.value) == ("handler", place)
        assert (await control.get_status()).handler == "tests.core.conftest:echo"


async def test_options_in_force_are_shown_without_secrets_and_live_objects(control_of: ControlOf) -> None:
    def has_room(peer: object) -> bool:
        return True

    async with (
        open_listener(
            "echo",
            "127.0.0.1:0",
            echo,
            max_conn_rate="10/s burst 20",
            access_rules=["deny 10.0.0.0/8"],
            limiter=None,
            load_hook=has_room,
            refuse_with=b"busy",
            tcp=TcpOptions(backlog=7),
        ) as listener,
        control_of(listener) as control,
    ):
        await control.deny("192.0.2.1")
        options = await control.get_options()
        assert options["max_conn_rate"] == "10/s burst 20"
        assert options["access_rules"] == ("deny 192.0.2.1", "deny 10.0.0.0/8")
        assert str(options["load_hook"]).endswith("<locals>.has_room")
        assert options["refuse_with"] == b"busy"
        assert (options["tcp.backlog"], options["tcp.nodelay"], options["unix.mode"]) == (7, True, None)
        assert options["tls"] is None
        assert OptionsView.from_dict(json.loads(json.dumps(options.as_dict()))) == options


async def test_the_old_and_new_values_of_a_change_are_plain(control_of: ControlOf) -> None:
    async with (
        open_listener("echo", "127.0.0.1:0", echo, access_rules=["deny 10.0.0.0/8"]) as listener,
        control_of(listener) as control,
    ):
        plan = await control.plan_options(access_rules=AccessList(["allow 10.0.0.0/8"], "deny"), tcp={"backlog": 9})
        assert [(change.name, change.old, change.new) for change in plan.changes] == [
            ("access_rules", ("deny 10.0.0.0/8",), ("allow 10.0.0.0/8", "deny all")),
            ("tcp.backlog", 1024, 9),
        ]
        assert OptionPlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_control_that_forgets_a_method_cannot_be_made() -> None:
    class Forgetful(ListenerControl):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Forgetful()  # type: ignore[abstract]


async def test_suspend_and_resume_reach_the_listener(control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
            await control.suspend()
            with connect(listener) as client:
                await control.resume()
                assert await answer(client) == b"hello"


async def test_reopen_at_another_address_keeps_connections_and_tells_a_taken_one(control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", steady_address(), echo) as listener,
            open_listener("other", steady_address(), echo) as other,
            control_of(listener) as control,
        ):
            client = await served(listener)
            with pytest.raises(AddressInUse):
                await control.reopen(f"127.0.0.1:{other.port}")
            await control.reopen("127.0.0.2:0")
            assert listener.addresses == (f"127.0.0.2:{listener.port}",)
            assert await answer(client) == b"hello"
            client.close()


@pytest.mark.parametrize("way", ["close", "drain", "kill"])
async def test_every_way_to_close_ends_the_listener(way: str, control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with Server() as server:
            listener = await server.open("echo", "127.0.0.1:0", echo, shutdown_timeout=0.1)
            async with control_of(listener) as control:
                client = await served(listener)
                match way:
                    case "close":
                        await control.close()
                    case "drain":
                        await control.drain(timeout=0.1, rate=100)
                    case "kill":
                        await control.kill()
                await control.wait_closed()
                assert (await control.get_status()).state == "closed"
                with pytest.raises(ConnectionResetError):
                    await rest(client)
                client.close()
