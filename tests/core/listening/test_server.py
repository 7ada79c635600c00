"""A server: the listeners of a program, found by name and address."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import answer, connect, echo, rest, until
from tests.core.listening.conftest import ask_echo, say_goodbye
from tests.ports import steady_address

from esockd_core import AddressInUse, AlreadyOpen, ListenerClosed, Server, UnknownListener

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import UNIXSocketStream


pytestmark = pytest.mark.anyio


async def test_leaving_the_block_of_a_server_closes_every_listener() -> None:
    async with Server() as server:
        first = await server.open("bye", "127.0.0.1:0", say_goodbye, linger_timeout=0)
        second = await server.open("echo", "127.0.0.1:0", echo, shutdown_timeout=0, linger_timeout=0)
        client = connect(first)
        await until(lambda: first.stats().accepted == 1)
    with client:
        assert await rest(client) == b"goodbye"
    assert (first.state, second.state) == ("closed", "closed")


async def test_an_address_in_use_harms_neither_the_server_nor_its_listeners() -> None:
    async with Server() as server:
        first = await server.open("first", "127.0.0.1:0", echo)
        with pytest.raises(AddressInUse):
            await server.open("second", ("127.0.0.1", first.port), echo)
        assert server.listeners() == (first,)
        with connect(first) as client:
            assert await answer(client) == b"hello"


async def test_a_server_finds_listeners_by_name_and_address() -> None:
    async with Server() as server:
        first = await server.open("echo", "127.0.0.1:0", echo)
        second = await server.open("echo", "[::1]:0", echo)
        with pytest.raises(AlreadyOpen):
            await server.open("echo", "127.0.0.1:0", echo)
        with pytest.raises(UnknownListener, match="give one of the addresses"):
            server.listener("echo")
        assert server.listener("echo", "[::1]:0") is second
        await server.close("echo", "[::1]:0")
        assert server.listener("echo") is first
        with pytest.raises(UnknownListener, match="open: echo"):
            server.listener("other")


async def test_a_server_raises_what_its_block_raised() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with Server() as server:
            listener = await server.open("echo", "127.0.0.1:0", echo)
            raise ZeroDivisionError
    assert listener.state == "closed"


async def test_counters_belong_to_the_name_and_survive_closing() -> None:
    async with Server() as server:
        for number in (1, 2):
            listener = await server.open("echo", "127.0.0.1:0", echo)
            with connect(listener) as client:
                assert await answer(client) == b"hello"
            await server.close("echo")
            assert listener.stats().accepted == number


async def test_counters_of_the_listeners_that_closed_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core._stats.counters.MOST_CLOSED", 2)

    async with Server() as server:
        accepted: list[int] = []
        for name in ("first", "second", "first", "third", "second", "first"):
            listener = await server.open(name, "127.0.0.1:0", echo)
            with connect(listener) as client:
                assert await answer(client) == b"hello"
            await server.close(name)
            accepted.append(listener.stats().accepted)
    assert accepted == [1, 1, 2, 1, 1, 1]


async def test_a_server_opens_finds_and_closes_listeners_by_name() -> None:
    async with Server() as server:
        opened = await server.open("echo", "127.0.0.1:0", echo)
        assert server.listener("echo") is opened
        await server.close("echo")
        assert opened.state == "closed"
        assert server.listeners() == ()


async def test_listeners_of_one_name_on_two_addresses_count_apart() -> None:
    async with Server() as server:
        busy = await server.open("echo", "127.0.0.1:0", echo)
        idle = await server.open("echo", "[::1]:0", echo)
        assert busy.port is not None
        with anyio.fail_after(30):
            async with await anyio.connect_tcp("127.0.0.1", busy.port) as client:
                await ask_echo(client, b"hello")
        assert (busy.stats().accepted, idle.stats().accepted) == (1, 0)


async def test_a_listener_that_moved_counts_apart_from_the_next_at_its_old_address(tmp_path: Path) -> None:
    old, new = f"unix:{tmp_path / 'old'}", f"unix:{tmp_path / 'new'}"
    async with Server() as server:
        moved = await server.open("echo", old, echo)
        await server.reopen("echo", move_to=new)
        await server.open("echo", old, echo)
        with anyio.fail_after(30):
            async with await anyio.connect_unix(tmp_path / "new") as client:
                await ask_unix(client)
        assert (moved.stats().accepted, server.listener("echo", old).stats().accepted) == (1, 0)


async def test_counters_survive_a_close_and_go_along_with_a_move(tmp_path: Path) -> None:
    old, new = f"unix:{tmp_path / 'old'}", f"unix:{tmp_path / 'new'}"
    async with Server() as server:
        await server.open("echo", old, echo)
        with anyio.fail_after(30):
            async with await anyio.connect_unix(tmp_path / "old") as client:
                await ask_unix(client)
        await server.reopen("echo", move_to=new)
        await server.close("echo")
        assert (await server.open("echo", new, echo)).stats().accepted == 1
        assert (await server.open("echo", old, echo)).stats().accepted == 0


async def ask_unix(client: UNIXSocketStream) -> None:
    await client.send(b"x")
    assert await client.receive() == b"x"


async def test_a_server_that_ends_while_a_listener_opens_closes_it_too() -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as task_group, Server() as server:

            async def open_one() -> None:
                try:
                    await server.open("late", "localhost:0", echo)
                except ListenerClosed:
                    logging.getLogger(__name__).debug("the server was faster")

            task_group.start_soon(open_one)
            while not server.listeners():
                await anyio.lowlevel.checkpoint()
    assert server.listeners() == ()


async def test_no_two_listeners_get_the_same_name_and_address_by_moving(tmp_path: Path) -> None:
    there = f"unix:{tmp_path / 'there'}"
    async with Server() as server:
        moving = await server.open("echo", "127.0.0.1:0", echo)
        await server.open("echo", "[::1]:0", echo)
        with pytest.raises(AlreadyOpen, match="is open already"):
            await server.reopen("echo", "127.0.0.1:0", move_to="[::1]:0")
        with pytest.raises(AlreadyOpen, match="is open already"):
            await moving.reopen("[::1]:0")
        assert moving.state == "running"
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(moving.reopen, there)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(AlreadyOpen, match="is open already"):
                await server.open("echo", there, echo)
        await server.open("echo", "127.0.0.1:0", echo)


async def never_resolve(*_: object, **__: object) -> NoReturn:
    await anyio.sleep_forever()
    raise AssertionError


async def test_killing_does_not_wait_for_a_name_to_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    with anyio.fail_after(30):
        async with Server() as server:
            listener = await server.open("echo", steady_address(), echo)
            monkeypatch.setattr(anyio, "getaddrinfo", never_resolve)

            async def reopen() -> None:
                with pytest.raises(ListenerClosed):
                    await listener.reopen("name.example:0")

            async def open_another() -> None:
                with pytest.raises(ListenerClosed):
                    await server.open("other", "name.example:0", echo)

            async with anyio.create_task_group() as task_group:
                task_group.start_soon(reopen)
                task_group.start_soon(open_another)
                while len(server.listeners()) < 2:
                    await anyio.lowlevel.checkpoint()
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                for each in server.listeners():
                    await each.kill()
    assert listener.state == "closed"
