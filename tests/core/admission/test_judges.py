"""What a program gives to judge clients: its limiter and its hook, and what their faults cost."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import answer, connect, echo, rest

from esockd_core import InvalidOption, open_listener

pytestmark = pytest.mark.anyio


class FaultyLimiter:
    """Its `wait_time` fails; its `try_acquire` works."""

    def try_acquire(self) -> bool:
        return True

    def wait_time(self) -> float:
        raise RuntimeError("the limiter's store is away")


async def test_a_limiter_that_cannot_tell_when_to_wait_leaves_the_verdict_to_its_other_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(30):
        async with open_listener(
            "test", "127.0.0.1:0", echo, limiter=FaultyLimiter(), when_limited="backlog"
        ) as listener:
            assert listener.port is not None
            for _ in range(6):
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    await client.send(b"hello")
                    assert await client.receive() == b"hello"
            assert [acceptor.restarts for acceptor in listener.acceptors] == [0]
    assert "the limiter's store is away" in caplog.text
    assert listener.stats().accepted == 6


async def refuse_all(_: object) -> bool:
    return False


class AsynchronousLimiter:
    async def try_acquire(self) -> bool:
        return False

    async def wait_time(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    "options", [{"load_hook": refuse_all}, {"limiter": AsynchronousLimiter()}], ids=["load_hook", "limiter"]
)
async def test_a_judge_that_is_a_coroutine_function_is_refused_because_it_would_admit_everybody(
    options: dict[str, Any],
) -> None:
    with pytest.raises(InvalidOption, match="coroutine function"):
        async with open_listener("test", "127.0.0.1:0", echo, **options):
            pass


@pytest.mark.parametrize(("has_room", "counts"), [(True, (1, 0)), (False, (0, 1))])
async def test_the_programs_own_hook_decides_about_load(has_room: bool, counts: tuple[int, int]) -> None:
    """esockd's t_tune_fun_ok and t_tune_fun_overload."""
    asked: list[object] = []

    def hook(peer: object) -> bool:
        asked.append(peer)
        return has_room

    async with open_listener("echo", "127.0.0.1:0", echo, load_hook=hook) as listener:
        with connect(listener) as client:
            name = client.getsockname()
            assert await (answer(client, b"x") if has_room else rest(client)) == (b"x" if has_room else b"")
        stats = listener.stats()
        assert (stats.accepted, stats.closed_overloaded) == counts
    assert asked == [name]


async def test_a_hook_that_raises_refuses_its_client_and_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def hook(peer: object) -> bool:
        if len(asked) < 10:
            asked.append(peer)
            raise ZeroDivisionError("broken hook")
        return True

    asked: list[object] = []
    async with open_listener("echo", "127.0.0.1:0", echo, load_hook=hook) as listener:
        for _ in range(10):
            with connect(listener) as refused:
                assert await rest(refused) == b""
        with connect(listener) as client:
            assert await answer(client, b"x") == b"x"
        assert listener.stats().closed_other_reasons == 10
        assert listener.acceptors[0].restarts == 0
    assert "broken hook" in listener.refusals[0].reason
