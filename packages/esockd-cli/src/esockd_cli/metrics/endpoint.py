"""The endpoint that Prometheus scrapes and probes ask: an esockd listener beside those of the program."""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio

from esockd_cli._failures import cannot_start
from esockd_cli.metrics.http import MAX_HEAD_BYTES, PLAIN, BadRequest, read_request, write_error, write_response
from esockd_core import (
    AlreadyOpen,
    InvalidOption,
    ListenerOptions,
    MessageCutShort,
    MessageTooLong,
    Server,
    SocketError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_cli._output import Output
    from esockd_cli.metrics.exporter import Exporter
    from esockd_core import Address, ControlSource, Listener, StreamConnection

EXCHANGE_S: Final = 10.0  # for a request and its answer; Prometheus gives up after as long
OPTIONS: Final = ListenerOptions(
    max_connections=64,
    refuse_with=write_error(HTTPStatus.SERVICE_UNAVAILABLE),
    send_timeout=EXCHANGE_S,
    shutdown_timeout=1.0,
    linger_timeout=1.0,
)
INDEX: Final = b"/metrics\n/healthz\n/readyz\n"


@asynccontextmanager
async def serve_metrics(
    source: ControlSource, address: Address | None, *, suspended: bool = False
) -> AsyncIterator[Listener | None]:
    """Serve the metrics of a program for the duration of a block, which gets the listener.

    Args:
        source: Knows the listeners.
        address: Where to serve them; None for nowhere.
        suspended: Whether it is for somebody else to resume the listener.

    Raises:
        CommandError: The address cannot be opened.
    """
    if address is None:
        yield None
        return
    from esockd_cli.metrics.exporter import Exporter  # noqa: PLC0415 (and with it the library)

    endpoint = Endpoint(Exporter(source))
    async with Server() as server:
        try:
            listener = await server.open("metrics", address, endpoint.serve, OPTIONS, suspended=suspended)
        except (SocketError, InvalidOption, AlreadyOpen) as error:
            failure = error
        else:
            yield listener
            return
    raise cannot_start(failure) from failure


def announce_metrics(listener: Listener | None, output: Output) -> None:
    """Tell where metrics are served."""
    for address in () if listener is None else listener.addresses:
        output.data(None, event="metrics", address=address)
        where = address if address.startswith("unix:") else f"http://{address}/metrics"
        output.note(f"metrics on {where}")


class Endpoint:
    """Answers requests.

    Args:
        exporter: What is told.
    """

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def serve(self, connection: StreamConnection) -> None:
        """Answer one request; the end of the connection belongs to the answer."""
        with anyio.move_on_after(EXCHANGE_S) as scope:
            try:
                await connection.send(await self._answer(connection))
            except (MessageCutShort, anyio.EndOfStream, anyio.BrokenResourceError):
                return  # it left
        if scope.cancelled_caught:
            connection.abort("receive_timeout")

    async def _answer(self, connection: StreamConnection) -> bytes:
        try:
            request = read_request(await connection.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES))
        except MessageTooLong:
            return write_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except BadRequest as error:
            return write_error(error.status)
        status, body, content_type = HTTPStatus.OK, b"ok\n", PLAIN
        match request.path:
            case "/metrics":
                from esockd_cli.metrics.text import CONTENT_TYPE  # noqa: PLC0415

                body, content_type = await self._exporter.text(), CONTENT_TYPE
            case "/readyz":
                if (why := await self._exporter.not_ready()) is not None:
                    status, body = HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode()
            case "/healthz":
                pass
            case "/":
                body = INDEX
            case _:
                status, body = HTTPStatus.NOT_FOUND, f"{HTTPStatus.NOT_FOUND.phrase}\n".encode()
        return write_response(status, body, content_type, is_head=request.is_head)
