"""Faults of accept(2) on purpose: raised at the step they are set for, and no client is lost by them."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, until
from tests.patience import PATIENCE_S

from esockd_core import open_listener
from esockd_core.testing import AcceptFaults, FlakySocket

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_faults_come_at_their_steps_and_every_client_is_served() -> None:
    with FlakySocket({3: errno.EMFILE, 5: errno.ECONNABORTED}) as sock:
        async with open_listener("echo", sock, echo) as listener:
            for _ in range(6):
                with connect(listener) as client:
                    assert await answer(client) == b"hello"
            assert listener.stats().accepted == 6
            assert listener.stats().closed_sys_limit == 1
        assert sock.faults.calls == 8
        assert sock.faults.steps == {}


async def test_a_fault_stays_until_it_is_taken_away() -> None:
    with FlakySocket() as sock:
        async with open_listener("echo", sock, echo) as listener:
            with connect(listener) as client:
                assert await answer(client) == b"hello"
            sock.faults.always = errno.ENFILE
            with connect(listener) as waiting:
                await until(lambda: listener.stats().closed_sys_limit >= 2)
                assert listener.stats().accepted == 1
                sock.faults.always = None
                assert await answer(waiting) == b"hello"


async def test_a_fault_for_good_closes_the_listener_with_its_error() -> None:
    with FlakySocket({2: errno.EINVAL}) as sock:
        with pytest.raises(OSError, match="Invalid argument"), anyio.fail_after(30):  # noqa: PT012
            async with open_listener("echo", sock, echo, linger_timeout=0, shutdown_timeout=0.1) as listener:
                with connect(listener), connect(listener):
                    await anyio.sleep_forever()
        assert listener.state == "closed"


async def test_the_steps_are_counted_over_all_acceptors() -> None:
    with FlakySocket({4: errno.EMFILE}) as sock:
        async with open_listener("echo", sock, echo, acceptors=3) as listener:
            for _ in range(8):
                with connect(listener) as client:
                    assert await answer(client) == b"hello"
            assert listener.stats().closed_sys_limit == 1


async def test_a_unix_socket_of_the_tests_own_can_be_made_flaky(tmp_path: Path) -> None:
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(tmp_path / "flaky"))
    given.listen()
    with FlakySocket({1: errno.EMFILE}, listening=given) as sock:
        async with open_listener("echo", sock, echo) as listener:
            async with await anyio.connect_unix(tmp_path / "flaky") as client:
                with anyio.fail_after(30):
                    await client.send(b"hello")
                    assert await client.receive() == b"hello"
            assert listener.stats().closed_sys_limit == 1


async def test_closing_the_listener_leaves_the_socket_to_its_owner() -> None:
    with FlakySocket() as sock:
        async with open_listener("echo", sock, echo):
            pass
        assert sock.getsockname()[1] > 0


def test_a_call_that_finds_no_client_is_no_step() -> None:
    with FlakySocket({1: errno.EMFILE}) as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()
        assert sock.faults.calls == 0
        with socket.create_connection(sock.getsockname(), PATIENCE_S):
            with pytest.raises(OSError, match="Too many open files"):
                sock.accept()
            accepted, _ = sock.accept()
            accepted.close()
        assert sock.faults.calls == 2


def test_faults_can_be_given_while_they_happen() -> None:
    faults = AcceptFaults({1: errno.EMFILE})
    faults.always = errno.ENOMEM
    with pytest.raises(OSError, match="Too many open files"):
        faults.raise_next()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        faults.raise_next()
    faults.always = None
    faults.raise_next()
    assert faults.calls == 3
