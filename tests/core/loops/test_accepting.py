"""Taking clients from the kernel's queue: errors of accept(2) and pauses; no client is lost, no loop spins."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import answer, connect, echo, until

from esockd_core import ConnectionEvent, StreamConnection, open_listener
from esockd_core._loops.accept import BATCH, AcceptAnswer, answer_to
from esockd_core._loops.asyncio import accept as asyncio_accept
from esockd_core._platform import descriptors
from esockd_core._platform.descriptors import Descriptors
from esockd_core.testing import FlakySocket, connect_and_reset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


# The policy


ANSWERS = {
    "EAGAIN": AcceptAnswer.WAIT,
    "EWOULDBLOCK": AcceptAnswer.WAIT,
    **dict.fromkeys(
        [
            "ECONNABORTED", "EINTR", "EPROTO", "EPERM", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET",
            "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ETIMEDOUT",
        ],
        AcceptAnswer.RETRY,
    ),
    **dict.fromkeys(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"], AcceptAnswer.BACK_OFF),
    **dict.fromkeys(["EBADF", "EINVAL", "ENOTSOCK", "EFAULT"], AcceptAnswer.FAIL),
}  # fmt: skip
ANSWERS_HERE = {name: answer for name, answer in ANSWERS.items() if hasattr(errno, name)}


@pytest.mark.parametrize(("name", "expected"), ANSWERS_HERE.items(), ids=list(ANSWERS_HERE))
def test_each_error_of_accept_has_one_answer(name: str, expected: AcceptAnswer) -> None:
    assert answer_to(OSError(getattr(errno, name), name)) is expected


def test_an_error_without_a_number_ends_the_listener() -> None:
    assert answer_to(OSError("strange")) is AcceptAnswer.FAIL


# Faults: accept(2) fails as a test says


@pytest.fixture
def flaky() -> Iterator[FlakySocket]:
    with FlakySocket() as sock:
        yield sock


@pytest.mark.parametrize("step", [1, 2, 3, 7])
async def test_an_emfile_at_any_step_loses_no_client_and_is_counted(flaky: FlakySocket, step: int) -> None:
    async with open_listener("echo", flaky, echo) as listener:
        flaky.faults.steps = {step: errno.EMFILE}
        clients = [connect(listener) for _ in range(6)]
        for client in clients:
            with client:
                assert await answer(client) == b"hello"
        with connect(listener) as late:
            assert await answer(late) == b"hello"
        assert listener.stats().accepted == 7
        assert listener.stats().closed_sys_limit == 1


async def test_clients_that_vanish_in_the_queue_do_not_stop_the_acceptor(flaky: FlakySocket) -> None:
    """The whole list of accept(2), as one burst."""
    gone = [getattr(errno, name) for name, expected in ANSWERS_HERE.items() if expected is AcceptAnswer.RETRY]
    async with open_listener("echo", flaky, echo) as listener:
        flaky.faults.steps = dict(enumerate(gone, start=1))
        with connect(listener) as client:
            assert await answer(client) == b"hello"
        assert not flaky.faults.steps
        assert listener.acceptors[0].restarts == 0


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EMFILE])
async def test_an_error_that_does_not_go_away_makes_no_busy_loop(
    flaky: FlakySocket, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers go on, calls of accept(2) stay few, the log gets one line, and it recovers by itself."""
    caplog.set_level(logging.WARNING, "esockd_core")
    async with open_listener("echo", flaky, echo) as listener:
        with connect(listener) as early, connect(listener) as late:
            await until(lambda: listener.stats().accepted == 2)
            flaky.faults.always = number
            before = flaky.faults.calls
            with connect(listener) as waiting:
                await until(lambda: listener.stats().closed_sys_limit >= 3)  # at 0, 0.1 and 0.3 s
                assert flaky.faults.calls - before <= 5 * BATCH
                assert await answer(early) == b"hello"
                flaky.faults.always = None
                assert await answer(waiting) == b"hello"
            assert await answer(late) == b"hello"
    lines = [record for record in caplog.records if "accept failed" in record.message]
    assert len(lines) == 1


async def test_the_pause_after_failures_grows_to_a_second_and_starts_again_after_a_success(
    flaky: FlakySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    real = anyio.sleep

    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)
        await real(0)

    monkeypatch.setattr("esockd_core._loops.accept.anyio.sleep", sleep)
    async with open_listener("echo", flaky, echo) as listener:
        flaky.faults.steps = dict.fromkeys(range(1, 7), errno.ENFILE)
        with connect(listener) as client:
            assert await answer(client) == b"hello"
        flaky.faults.steps = {flaky.faults.calls + 1: errno.ENFILE}
        with connect(listener) as client:
            assert await answer(client) == b"hello"
    wanted = [pause for pause in pauses if pause not in (0, 0.01)]
    assert wanted == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.1]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF])
async def test_an_error_that_is_for_good_closes_the_listener_with_it(
    flaky: FlakySocket, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """esockd's t_einval: neither silence nor a busy loop; open connections are told and end."""
    told = anyio.Event()

    async def wait_for_goodbye(connection: StreamConnection) -> None:
        await connection.wait_draining()
        told.set()

    with pytest.raises(OSError, match=os.strerror(number)) as caught, anyio.fail_after(30):  # noqa: PT012
        async with open_listener("echo", flaky, wait_for_goodbye, linger_timeout=0) as listener:
            with connect(listener), connect(listener):
                await until(lambda: listener.stats().accepted == 2)
                flaky.faults.always = number
                with connect(listener):
                    await anyio.sleep_forever()
    assert caught.value.errno == number
    assert told.is_set()
    assert listener.state == "closed"
    assert "cannot accept any more" in caplog.text


@pytest.mark.linux
async def test_shutting_the_listening_socket_down_closes_the_listener() -> None:
    """esockd's t_close_listener_socket_cause_acceptor_stop, with what the host itself gave."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        with pytest.raises(OSError, match=r"shut down|Invalid") as caught, anyio.fail_after(30):  # noqa: PT012
            async with open_listener("echo", given, echo, shutdown_timeout=0, linger_timeout=0) as listener:
                with connect(listener) as client:
                    assert await answer(client) == b"hello"
                    given.shutdown(socket.SHUT_RDWR)
                    await anyio.sleep_forever()
        assert caught.value.errno == errno.EINVAL
        assert listener.state == "closed"
        assert listener.stats().current_connections == 0


async def test_near_the_limit_of_descriptors_clients_are_served_and_the_end_of_the_socket_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where uvloop's own accepting would throw clients away, the exact loop does all of it."""
    monkeypatch.setattr(asyncio_accept, "count_descriptors", lambda: Descriptors(0, 96))
    monkeypatch.setattr(asyncio_accept, "wait_until_plenty", anyio.sleep_forever)
    given = socket.create_server(("127.0.0.1", 0))
    with given, pytest.raises(OSError, match="Invalid argument"), anyio.fail_after(30):  # noqa: PT012
        async with open_listener("echo", given, echo, shutdown_timeout=0, linger_timeout=0) as listener:
            with connect(listener) as client:
                assert await answer(client) == b"hello"
                given.shutdown(socket.SHUT_RDWR)
                await anyio.sleep_forever()


@pytest.mark.linux
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_scarce_descriptors_are_noticed_before_the_next_client_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop would accept clients only to close them: whoever is accepted first is too late to tell."""
    noticed = anyio.Event()

    async def wait_until_plenty() -> None:
        noticed.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(asyncio_accept, "wait_until_plenty", wait_until_plenty)
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with connect(listener) as first, anyio.fail_after(30):
            assert await answer(first) == b"hello"
            assert not noticed.is_set()
            monkeypatch.setattr(descriptors, "count_descriptors", lambda: Descriptors(0, 96))
            await noticed.wait()
            with connect(listener) as second:
                assert await answer(second) == b"hello"


# Clients that are gone before they are accepted


async def test_a_client_that_reset_in_the_queue_is_counted_early_and_the_next_is_served(handler: Handler) -> None:
    started: list[ConnectionEvent] = []
    async with open_listener("echo", "127.0.0.1:0", handler, on_event=started.append) as listener:
        await listener.suspend()
        for _ in range(3):
            connect_and_reset(listener.addresses[0])
        with connect(listener) as client:
            await listener.resume()
            assert await answer(client) == b"hello"
        stats = listener.stats()
    assert (stats.accepted, stats.closed_early) == (1, 3)
    assert [event.kind for event in started].count("connection_started") == 1


async def test_a_client_that_finished_in_the_queue_is_served_what_it_sent(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        await listener.suspend()
        with connect(listener) as client:
            client.sendall(b"last words")
            client.shutdown(socket.SHUT_WR)
            await listener.resume()
            with anyio.fail_after(30):
                await anyio.wait_readable(client)
            assert client.recv(100) == b"last words"


# Batches


async def test_a_full_queue_does_not_starve_other_tasks(anyio_backend_name: str) -> None:
    accepted_in_a_turn = 0

    async def watch() -> None:
        nonlocal accepted_in_a_turn
        before = 0
        while True:
            await checkpoint()
            now = listener.stats().accepted
            accepted_in_a_turn, before = max(accepted_in_a_turn, now - before), now

    async with open_listener("echo", "127.0.0.1:0", echo) as listener, anyio.create_task_group() as tasks:
        await listener.suspend()
        clients = [connect(listener) for _ in range(5 * BATCH)]
        tasks.start_soon(watch)
        await listener.resume()
        await until(lambda: listener.stats().accepted == 5 * BATCH)
        tasks.cancel_scope.cancel()
        for client in clients:
            client.close()
    assert 0 < accepted_in_a_turn <= 2 * BATCH  # a task may get its turn after two batches
