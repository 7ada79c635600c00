"""Clients that wait in the kernel's queue when its socket is closed: those are served, and no others."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import connect, until
from tests.patience import PATIENCE_S
from tests.ports import steady_address

from esockd_core import ConnectionEvent, Listener, StreamConnection, open_listener
from esockd_core._listening import intake
from esockd_core._loops.accept import BATCH
from esockd_core.testing import FlakySocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

ENDINGS: dict[str, Callable[[Listener], Awaitable[None]]] = {
    "close": Listener.close,
    "kill": Listener.kill,
    "reopen": Listener.reopen,
}


class Onrush:
    """Whenever a client is accepted, the next one comes."""

    def __init__(self, place: object, clients: ExitStack) -> None:
        self.place = place
        self.clients = clients
        self.starts = 0

    def come(self) -> None:
        sock = self.clients.enter_context(
            socket.socket(socket.AF_UNIX if isinstance(self.place, str) else socket.AF_INET)
        )
        sock.settimeout(PATIENCE_S)
        sock.connect(self.place)  # type: ignore[arg-type]

    def on_event(self, event: ConnectionEvent) -> None:
        if event.kind == "connection_started":
            self.starts += 1
            with suppress(OSError):  # the socket is closed, or made anew
                self.come()


async def leave(connection: StreamConnection) -> None:
    """Its clients say nothing, and do not leave by themselves."""


@pytest.mark.linux
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_only_clients_that_were_queued_before_are_served(ending: str, kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with anyio.fail_after(20), ExitStack() as clients:
        onrush = Onrush(path, clients)
        address = f"unix:{path}" if kind == "unix" else steady_address()
        async with open_listener("last", address, leave, linger_timeout=0.01, on_event=onrush.on_event) as listener:
            if kind == "tcp":
                onrush.place = ("127.0.0.1", listener.port)
            await listener.suspend()
            for _ in range(5):
                onrush.come()
            await ENDINGS[ending](listener)
            assert onrush.starts == 5
            assert listener.stats().accepted == 5


async def test_where_the_length_of_the_queue_is_unknown_its_limit_bounds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "accept_queue", lambda listening: None)
    with anyio.fail_after(20), ExitStack() as clients:
        onrush = Onrush(None, clients)
        async with open_listener(
            "last", "127.0.0.1:0", leave, linger_timeout=0.01, on_event=onrush.on_event, tcp={"backlog": 10}
        ) as listener:
            onrush.place = ("127.0.0.1", listener.port)
            await listener.suspend()
            for _ in range(5):
                onrush.come()
            await listener.close()
            assert listener.stats().accepted == 11


async def test_others_get_their_turn_while_a_long_queue_is_served() -> None:
    turns = 0
    seen: list[int] = []

    def note(event: ConnectionEvent) -> None:
        seen.append(turns)

    with anyio.fail_after(20), ExitStack() as clients:
        async with (
            open_listener("last", steady_address(), leave, linger_timeout=0.01, on_event=note) as listener,
            anyio.create_task_group() as others,
        ):
            await listener.suspend()
            for _ in range(5 * BATCH):
                clients.enter_context(connect(listener))

            async def take_turns() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await checkpoint()

            others.start_soon(take_turns)
            await listener.reopen()
            others.cancel_scope.cancel()
            assert listener.stats().accepted == 5 * BATCH
            assert seen[5 * BATCH - 1] - seen[0] >= 3  # one less than there are pauses: tasks take turns in any order


@pytest.mark.linux
async def test_a_cancelled_reopen_leaves_the_rest_of_the_queue_where_it_is() -> None:
    waiting = 3 * BATCH
    with anyio.fail_after(20), ExitStack() as clients:
        scope = anyio.CancelScope()

        def cancel(event: ConnectionEvent) -> None:
            scope.cancel()

        async with open_listener("last", steady_address(), leave, linger_timeout=0.01, on_event=cancel) as listener:
            await listener.suspend()
            for _ in range(waiting):
                clients.enter_context(connect(listener))
            with scope:
                await listener.reopen()
            assert scope.cancelled_caught
            assert 0 < listener.stats().accepted <= BATCH
            assert (listener.stats().accept_queue_length or 0) >= waiting - BATCH
            assert listener.state == "suspended"
            await listener.resume()
            await until(lambda: listener.stats().accepted == waiting)


@pytest.mark.parametrize(("failures", "served"), [(1, 2), (3, 0)])
async def test_the_queue_is_tried_again_when_descriptors_are_short_but_not_for_ever(failures: int, served: int) -> None:
    with anyio.fail_after(20), FlakySocket(dict.fromkeys(range(1, failures + 1), errno.EMFILE)) as flaky:
        async with open_listener("last", flaky, leave, linger_timeout=0.01) as listener:
            await listener.suspend()
            with connect(listener), connect(listener):
                await listener.close()
        assert (listener.stats().accepted, listener.stats().closed_sys_limit) == (served, min(failures, 2))
