"""A FastAPI application with a listener beside its web pages, open from its startup to its shutdown.

uvicorn --app-dir examples fastapi_lifespan:app
nc 127.0.0.1 5000  # in another terminal
curl http://127.0.0.1:8000/clients  # in a third
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from esockd_core import Listener, Server, StreamConnection


async def echo(connection: StreamConnection) -> None:
    """Serve one client of the listener; say goodbye when the application shuts down."""
    with connection.until_draining():
        async for data in connection:
            await connection.send(data)
        return
    await connection.send(b"goodbye\n")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Listener]]:
    """Keep the listener open while the application runs; leaving it lets connections come to their end."""
    async with Server() as server:
        listener = await server.open("echo", os.environ.get("ECHO_ADDRESS", "127.0.0.1:5000"), echo)
        yield {"listener": listener}


app = FastAPI(lifespan=lifespan)


@app.get("/clients")
async def clients(request: Request) -> dict[str, Any]:
    """Where the listener is, and who is connected to it."""
    listener: Listener = request.state.listener
    page = await listener.list_connections()
    return {"addresses": listener.addresses, "clients": [each.as_dict() for each in page.connections]}
