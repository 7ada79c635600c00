"""Methods that a program adds to its control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.remote.conftest import by_hand
from tests.ports import steady_address

from esockd_core import (
    ControlClient,
    ControlDenied,
    ControlError,
    ControlServer,
    InvalidOption,
    ProgramMethod,
    Server,
    UnixOptions,
    UnknownMethod,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.core.remote.conftest import Controlled

pytestmark = pytest.mark.anyio


async def answer(given: Mapping[str, Any]) -> Any:
    return {"given": dict(given), "many": [1, None, "é"]}


async def refuse(_: Mapping[str, Any]) -> Any:
    raise ControlError("not today", code="holiday", hint="Come back tomorrow.")


async def fail(_: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError


METHODS = {
    "look": ProgramMethod(answer, is_change=False),
    "act": ProgramMethod(answer),
    "refuse": ProgramMethod(refuse),
    "fail": ProgramMethod(fail),
}


async def test_a_client_calls_a_method_of_the_program(controlled: Controlled) -> None:
    async with controlled(methods=METHODS) as (_, control), ControlClient(str(control.path)) as client:
        assert {*METHODS} <= {*client.greeting.methods}
        assert await client.call("act", x=[1, 2]) == {"given": {"x": [1, 2]}, "many": [1, None, "é"]}


async def test_the_client_gets_the_error_that_a_method_raises(
    controlled: Controlled, caplog: pytest.LogCaptureFixture
) -> None:
    async with controlled(methods=METHODS) as (_, control), ControlClient(str(control.path)) as client:
        with pytest.raises(ControlError) as raised:
            await client.call("refuse")
        assert (raised.value.code, raised.value.hint) == ("holiday", "Come back tomorrow.")
        with pytest.raises(ControlError, match="the instance failed"):
            await client.call("fail")
        assert "a request failed" in caplog.text
        assert await client.call("look") == await client.call("act")


async def test_a_program_without_the_method_says_so(controlled: Controlled) -> None:
    async with controlled() as (_, control), ControlClient(str(control.path)) as client:
        with pytest.raises(UnknownMethod):
            await client.call("act")


async def test_a_client_that_may_only_look_calls_no_method_that_changes(controlled: Controlled) -> None:
    read_only = UnixOptions(mode=0o600)
    async with controlled(methods=METHODS, read_only=read_only) as (_, control):
        path = str(control.path)
        for client in (ControlClient(path, read_only=True), ControlClient(path.replace(".sock", ".ro.sock"))):
            async with client:
                assert await client.call("look")
                with pytest.raises(ControlDenied):
                    await client.call("act")


async def test_a_method_that_takes_long_delays_no_other_request_and_is_cancelled_with_its_client(
    controlled: Controlled,
) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def wait(_: Mapping[str, Any]) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with controlled(methods={"wait": ProgramMethod(wait)}) as (_, control):
        async with by_hand(control.path) as client:
            await client.tell({"id": 7, "method": "wait"})
            await begun.wait()
            assert (await client.ask("get_instance"))["result"]["name"] == "edge"
        await ended.wait()


async def test_a_method_may_not_have_the_name_of_another_one() -> None:
    with pytest.raises(InvalidOption, match="listeners"):
        ControlServer(Server(), "edge", methods={"listeners": ProgramMethod(answer)})


async def test_the_sockets_of_a_listener_are_closed_once_it_drains(tmp_path: Path) -> None:
    from tests.core.conftest import echo  # noqa: PLC0415

    address = steady_address()
    with anyio.fail_after(60):
        async with Server() as server, anyio.create_task_group() as task_group:
            old = await server.open("old", address, echo)
            async with await anyio.connect_tcp("127.0.0.1", old.port or 0) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"
                task_group.start_soon(old.drain, None)
                await old.wait_draining()
                assert old.addresses == ()
                assert old.state == "draining"
                new = await server.open("new", address, echo)
                await new.kill()
