"""The farewell of a refused client: what it reads, and what that costs the listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import connect, connect_stream, echo, rest, until

from esockd_core import open_listener

if TYPE_CHECKING:
    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_farewells_are_bounded_in_number() -> None:
    with anyio.fail_after(20):
        async with open_listener(
            "test", "127.0.0.1:0", echo, access_rules=["deny all"], refuse_with=b"no", linger_timeout=0.2
        ) as listener:
            clients = [await connect_stream(listener) for _ in range(80)]
            await until(lambda: listener.stats().closed_forbidden == 80)
            told = 0
            for client in clients:
                try:
                    told += await client.receive() == b"no"
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    continue
                finally:
                    await client.aclose()
            assert 0 < told <= 80


@pytest.mark.parametrize(("how", "seen"), [("fin", b""), ("rst", None), (b"full, come back later\n", ...)])
async def test_a_refused_client_sees_how(how: Any, seen: Any, handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler, access_rules=["deny all"], refuse_with=how) as listener:
        with connect(listener) as client:
            if seen is None:
                with pytest.raises(ConnectionResetError):
                    await rest(client)
            else:
                assert await rest(client) == (how if seen is ... else seen)


async def test_a_farewell_reaches_a_client_that_was_talking_already() -> None:
    """Closing at once would make the kernel reset the connection and the farewell would be lost."""
    async with open_listener(
        "echo", "127.0.0.1:0", echo, access_rules=["deny all"], refuse_with=b"go away"
    ) as listener:
        await listener.suspend()
        with connect(listener) as client:
            client.sendall(b"x" * 10_000)
            await listener.resume()
            assert await rest(client) == b"go away"
