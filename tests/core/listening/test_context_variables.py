"""With which context variables handlers start: those of whoever opened the listener, and nobody else's."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

import pytest
from tests.core.conftest import connect, connect_stream, rest
from tests.ports import steady_address

from esockd_core import CallbackHandler, Handler, StreamConnection, open_listener

if TYPE_CHECKING:
    from esockd_core import Listener

pytestmark = pytest.mark.anyio

WHO: ContextVar[str] = ContextVar("who")


async def tell(connection: StreamConnection) -> None:
    await connection.send(WHO.get().encode())


class Tell(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(WHO.get().encode())
        connection.close_nowait()


@pytest.mark.parametrize("handler", [tell, Tell()], ids=["coroutine", "callback"])
@pytest.mark.parametrize("change", ["resume", "reopen"])
async def test_a_handler_does_not_see_the_variables_of_who_changed_the_listener(
    handler: Handler, change: Literal["resume", "reopen"]
) -> None:
    WHO.set("whoever opened it")
    async with open_listener("tell", steady_address(), handler, linger_timeout=0) as listener:
        await listener.suspend()
        with connect(listener) as queued:
            WHO.set("whoever changed it")
            await change_it(listener, change)
            assert await rest(queued) == b"whoever opened it"
        with connect(listener) as later:
            assert await rest(later) == b"whoever opened it"


async def change_it(listener: Listener, change: Literal["resume", "reopen"]) -> None:
    if change == "reopen":
        await listener.reopen()
    await listener.resume()


class Remember(CallbackHandler):
    """Answers with what the variable was, and sets it to what came."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(WHO.get("nobody").encode())
        WHO.set(data.decode())


async def test_a_callback_does_not_see_what_another_clients_callback_has_set() -> None:
    async with (
        open_listener("remember", "127.0.0.1:0", Remember()) as listener,
        await connect_stream(listener) as first,
        await connect_stream(listener) as second,
    ):
        for client in (first, second, first, second):
            await client.send(b"a client")
            assert await client.receive() == b"nobody"
