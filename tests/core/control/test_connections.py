"""Connections through `ListenerControl`: listed in pages, found, and killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import HEADER, answer, connect, echo, until
from tests.core.control.conftest import ids, refused, served

from esockd_core import CallbackHandler, ConnectionInfo, InvalidOption, StreamConnection, open_listener

if TYPE_CHECKING:
    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_connections_are_listed_in_pages_oldest_first(handler: Handler, control_of: ControlOf) -> None:
    """esockd's t_get_current_connections."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, control_of(listener) as control:
            clients = [await served(listener) for _ in range(5)]
            everyone = await ids(control)
            assert everyone == sorted(everyone)
            paged: list[list[int]] = []
            after: int | None = 0
            while after is not None:
                page = await control.list_connections(after=after, limit=2)
                paged.append([connection.id for connection in page.connections])
                after = page.after
            assert paged == [everyone[:2], everyone[2:4], everyone[4:]]
            for limit in (0, 1001):
                with pytest.raises(InvalidOption, match="1 to 1000"):
                    await control.list_connections(limit=limit)
            for client in clients:
                client.close()


async def test_connections_are_found_by_network_and_by_id(handler: Handler, control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, control_of(listener) as control:
            near, far = await served(listener), await served(listener, "127.1.0.1")
            assert len(await ids(control)) == 2
            [number] = await ids(control, "127.1.0.0/16")
            found = await control.find_connection(number)
            assert isinstance(found, ConnectionInfo)
            assert found.peername == found.socket_peername == far.getsockname()
            assert found.sockname == ("127.0.0.1", listener.port)
            assert (found.bytes_in, found.bytes_out, found.state, found.draining) == (5, 5, "open", False)
            assert found.tls is None
            assert await control.find_connection(0) is None
            with pytest.raises(InvalidOption, match="33"):
                await control.list_connections("10.0.0.0/33")
            near.close()
            far.close()


async def test_a_connection_behind_a_proxy_is_found_by_its_client(control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener,
            control_of(listener) as control,
        ):
            with connect(listener), connect(listener) as client:
                client.send(HEADER)
                await until(lambda: len(listener.connections) == 1 and listener.stats().entering == 1)
                [found] = (await control.list_connections("192.0.2.0/24")).connections
                assert found.peername == ("192.0.2.7", 41000)
                assert not (await control.list_connections("127.0.0.1")).connections  # the other is not public yet
                assert await control.kill_connections("127.0.0.1") == 1
                await until(lambda: listener.stats().shutdown_counts == {"killed": 1})


async def test_a_connection_is_killed_by_id_and_its_handler_with_it(control_of: ControlOf) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def sleep(_: StreamConnection) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.fail_after(20):
        async with open_listener("sleep", "127.0.0.1:0", sleep) as listener, control_of(listener) as control:
            with connect(listener) as client:
                await begun.wait()  # killed before, it would never be called
                [number] = await ids(control)
                assert await control.kill_connection(number)
                await ended.wait()
                await refused(client)
                await until(lambda: listener.stats().shutdown_counts == {"killed": 1})
                assert not await control.kill_connection(number)


async def test_connections_are_killed_by_network(handler: Handler, control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, control_of(listener) as control:
            kept = await served(listener)
            gone = [await served(listener, f"127.1.0.{number + 1}") for number in range(3)]
            assert await control.kill_connections("127.1.0.0/16") == 3
            for client in gone:
                await refused(client)
                client.close()
            await until(lambda: listener.stats().shutdown_counts == {"killed": 3})
            assert await answer(kept) == b"hello"
            with pytest.raises(InvalidOption):
                await control.kill_connections("nobody")
            assert await control.kill_connections("all") == 1
            kept.close()


async def test_killing_more_connections_than_a_chunk_gives_the_loop_its_turns() -> None:
    class Silent(CallbackHandler):
        pass

    with anyio.fail_after(30):
        async with open_listener("silent", "127.0.0.1:0", Silent()) as listener:
            clients = [connect(listener) for _ in range(300)]
            await until(lambda: len(listener.connections) == 300)
            assert await listener.kill_connections("all") == 300
            await until(lambda: not listener.connections)
            for client in clients:
                client.close()
