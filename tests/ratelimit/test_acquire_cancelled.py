"""`acquire` of a bucket in a cancelled scope: it takes nothing, exactly where AnyIO's own check would raise."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING

import anyio
import anyio._backends._asyncio
import pytest
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from esockd_ratelimit import CompositeLimiter, KeyedTokenBucket, TokenBucket
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

SCOPES = list(product([False, True], repeat=2))  # cancelled or not, shielded or not


async def takes(bucket: TokenBucket) -> bool:
    """Whether a call of `acquire` takes its token; else it was cancelled."""
    before = bucket.peek()
    try:
        await bucket.acquire()
    except anyio.get_cancelled_exc_class():
        assert bucket.peek() == before
        raise
    assert bucket.peek() == before - 1
    return True


@pytest.mark.parametrize("nest", [*product(SCOPES, repeat=1), *product(SCOPES, repeat=2), *product(SCOPES, repeat=3)])
async def test_acquire_is_cancelled_in_exactly_the_scopes_in_which_anyio_checkpoints_are(
    nest: tuple[tuple[bool, bool], ...],
) -> None:
    async def ends(call: Callable[[], Awaitable[object]]) -> bool:
        ended = []
        with anyio.CancelScope(), ExitStack() as stack:
            scopes = [stack.enter_context(anyio.CancelScope(shield=shield)) for _, shield in nest]
            for scope, (is_cancelled, _) in zip(scopes, nest, strict=True):
                if is_cancelled:
                    scope.cancel()
            ended.append(await call())
        return bool(ended)

    bucket = TokenBucket(10, clock=FakeClock())
    assert await ends(lambda: takes(bucket)) == await ends(checkpoint_if_cancelled)


async def test_a_child_task_whose_group_is_cancelled_while_it_runs_takes_nothing() -> None:
    bucket = TokenBucket(10, clock=FakeClock())
    async with anyio.create_task_group() as tasks:

        async def child() -> None:
            await checkpoint()
            tasks.cancel_scope.cancel()
            await bucket.acquire()

        tasks.start_soon(child)
    assert bucket.peek() == 10


async def test_keyed_and_composed_limits_take_nothing_either() -> None:
    sources = KeyedTokenBucket(1, burst=10, clock=FakeClock())
    bucket = TokenBucket(10, clock=FakeClock())
    both = CompositeLimiter({"all": bucket, "source": sources})
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sources.acquire("192.0.2.1")
    with anyio.CancelScope() as other_scope:
        other_scope.cancel()
        await both.acquire(key="192.0.2.1")
    assert scope.cancelled_caught
    assert other_scope.cancelled_caught
    assert bucket.peek() == 10
    assert sources.key_count == 0


@pytest.mark.parametrize("missing", ["_task_states", "current_task"])
async def test_with_an_anyio_that_is_built_otherwise_acquire_asks_its_public_function(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Otherwise:
        def __getattr__(self, name: str) -> object:
            if name == missing:
                raise AttributeError(name)
            return getattr(anyio._backends._asyncio, name)

    bucket = TokenBucket(10, clock=FakeClock())
    monkeypatch.setitem(sys.modules, "anyio._backends._asyncio", Otherwise())
    with anyio.CancelScope() as scope:
        await bucket.acquire()
        scope.cancel()
        await bucket.acquire()
    assert scope.cancelled_caught
    assert bucket.peek() == 9


async def test_a_scope_left_or_never_entered_does_not_count() -> None:
    bucket = TokenBucket(10, clock=FakeClock())
    anyio.CancelScope().cancel()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bucket.acquire()
    await bucket.acquire()
    assert bucket.peek() == 9
