"""Nobody outside hears of a connection before its entrance is passed, and nothing can be sent to it in the clear."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from anyio import create_task_group
from tests.core.conftest import HEADER, reasons, until
from tests.core.connection.strangers import ByHand, hello, rest, secure, serving
from tests.core.tls_clients import dial, run

from esockd_core import ProxyOptions

if TYPE_CHECKING:
    import socket

    from esockd_core import ConnectionEvent, Handler, TlsOptions

pytestmark = pytest.mark.anyio

SECRET = b"a word for those who are in"


class Leak:
    """Tells every connection that it hears of a secret: the hook of a careless broadcaster."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def __call__(self, event: ConnectionEvent) -> None:
        self.kinds.append(event.kind)
        if event.kind == "connection_started":
            event.connection.send_nowait(SECRET)


async def test_who_has_not_finished_the_handshake_is_in_no_list_and_no_event(handler: Handler, tls: TlsOptions) -> None:
    leak = Leak()
    async with serving(handler, tls=tls, on_event=leak, handshake_timeout=0.5) as listener:
        silent = await run(lambda: dial(listener))
        half = await run(lambda: dial(listener, hello()))
        await until(lambda: listener.stats().accepted == 2)
        assert listener.connections == ()
        assert SECRET not in await run(lambda: rest(silent))
        assert SECRET not in await run(lambda: rest(half))
        assert await reasons(listener, 2) == {"handshake_timeout": 2}
        silent.close()
        half.close()
    assert leak.kinds == []


async def test_the_hook_of_a_start_may_send_and_it_travels_encrypted(handler: Handler, tls: TlsOptions) -> None:
    def talk() -> bytes:
        with secure(dial(listener)) as client:
            return client.recv(100)

    leak = Leak()
    async with serving(handler, tls=tls, on_event=leak) as listener:
        assert await run(talk) == SECRET
        await reasons(listener)
    assert leak.kinds == ["connection_started", "connection_stopped"]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(HEADER, "source_forbidden"), (HEADER[:20], "proxy_timeout"), (b"GET / HTTP/1.0\r\n\r\n", "proxy_invalid")],
    ids=["denied", "half a header", "no header"],
)
async def test_who_has_not_passed_the_judgement_of_its_header_hears_nothing(
    handler: Handler, sent: bytes, reason: str
) -> None:
    leak = Leak()
    async with serving(
        handler,
        proxy_protocol=ProxyOptions(policy="require", header_timeout=0.3),
        on_event=leak,
        access_rules=["deny 192.0.2.7"],
    ) as listener:
        with await run(lambda: dial(listener, sent)) as client:
            assert await run(lambda: rest(client)) == b""
        assert await reasons(listener) == {reason: 1}
        assert listener.connections == ()
    assert leak.kinds == []


async def test_a_connection_in_its_entrance_can_be_killed(handler: Handler, tls: TlsOptions) -> None:
    leak = Leak()
    async with serving(handler, tls=tls, on_event=leak) as listener:
        half = await run(lambda: dial(listener, hello()))
        await until(lambda: listener.stats().accepted == 1)
        assert await listener.kill_connections("127.0.0.1") == 1
        await run(lambda: rest(half))
        assert await reasons(listener) == {"killed": 1}
        half.close()
    assert leak.kinds == []


async def test_a_connection_that_becomes_public_as_its_listener_closes_is_told_of_the_drain(
    handler: Handler, tls: TlsOptions
) -> None:
    def begin() -> tuple[socket.socket, ByHand]:
        by_hand = ByHand()
        return dial(listener, by_hand.step()), by_hand

    leak = Leak()
    async with serving(handler, tls=tls, on_event=leak, shutdown_timeout=0.3, linger_timeout=0.1) as listener:
        client, by_hand = await run(begin)
        await until(lambda: listener.stats().accepted == 1)

        def finish() -> None:
            with suppress(OSError):
                client.sendall(by_hand.answer(client))
                rest(client)
            client.close()

        async with create_task_group() as tasks:
            tasks.start_soon(listener.drain)
            await until(lambda: listener.state == "draining")
            await run(finish)
    assert leak.kinds in ([], ["connection_started", "connection_stopped"])
