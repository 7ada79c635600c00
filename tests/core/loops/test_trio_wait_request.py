"""What a datagram connection relies on of trio: a request to wait may be made again, and an outcome may be shared."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from esockd_core._loops.trio.datagram import WOKEN, request_to_wait

if TYPE_CHECKING:
    from collections.abc import Generator


@coroutine
def wait(request: object) -> Generator[Any, Any, Any]:
    return (yield request)


def test_trio_takes_one_request_again_and_one_outcome_for_all_also_after_a_cancellation() -> None:
    aborted: list[object] = []

    def abort(_: Any) -> trio.lowlevel.Abort:
        aborted.append(None)
        return trio.lowlevel.Abort.SUCCEEDED

    async def main() -> None:
        request = request_to_wait(abort)
        task = trio.lowlevel.current_task()

        async def wake() -> None:
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.reschedule(task, WOKEN)

        async def wait_and_be_woken() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wake)
                assert await wait(request) is WOKEN

        await wait_and_be_woken()
        with trio.CancelScope() as scope:
            scope.cancel()
            (await wait(request)).unwrap()
        assert scope.cancelled_caught
        assert len(aborted) == 1
        await wait_and_be_woken()
        await wait_and_be_woken()
        assert len(aborted) == 1

    trio.run(main)
