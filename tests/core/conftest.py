"""What the tests of esockd-core share: a listener on loopback with one client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.abc import SocketStream

from esockd_core import Handler, Listener, open_listener

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Listener, SocketStream]]]


@pytest.fixture
def serve() -> Serve:
    """Give an async context manager: a listener for a handler, and a client of it, both closed within 20 seconds."""

    @asynccontextmanager
    async def serve(handler: Handler, **options: Any) -> AsyncIterator[tuple[Listener, SocketStream]]:
        with anyio.fail_after(20):
            async with open_listener("test", "127.0.0.1:0", handler, **options) as listener:
                assert listener.port is not None
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    yield listener, client

    return serve
