"""Messages over TLS, and behind a PROXY header: whole, however the records cut them, and honest about an early end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.core.conftest import HEADER, reasons
from tests.core.tls.conftest import encrypted, read, secure
from tests.core.tls_clients import client_context, dial, run

if TYPE_CHECKING:
    from esockd_core import StreamConnection, TlsOptions

pytestmark = pytest.mark.anyio


async def double(connection: StreamConnection) -> None:
    """Answer each line and its body, whose length the line tells."""
    async for line in connection.lines(20):
        body = await connection.receive_exactly(int(line), mid_message=True)
        await connection.send(body + b"|")


@pytest.mark.parametrize("before", [b"", HEADER], ids=["plain", "proxied"])
async def test_messages_of_all_sizes_are_whole_however_records_cut_them(tls: TlsOptions, before: bytes) -> None:
    sizes = (0, 1, 100, 16_384, 16_385, 300_000, 5)
    sent = b"".join(b"%d\r\n" % size + b"x" * size for size in sizes)

    def talk() -> bytes:
        with secure(dial(listener, before), client_context()) as client:
            for start, end in ((0, 1), (1, 20), (20, 50_000), (50_000, len(sent))):
                client.sendall(sent[start:end])
            answer = read(client, sum(sizes) + len(sizes))
            client.unwrap().close()
            return answer

    async with encrypted(double, tls, read_buffer_bytes=20_000, proxy_protocol=bool(before)) as listener:
        assert await run(talk) == b"".join(b"x" * size + b"|" for size in sizes)
        assert await reasons(listener) == {"normal": 1}


@pytest.mark.parametrize(("sent", "reason"), [(b"3\nabc", "normal"), (b"3\nab", "cut_short"), (b"3\n", "cut_short")])
async def test_a_peer_that_says_that_it_finishes_is_taken_at_its_word(
    tls: TlsOptions, sent: bytes, reason: str
) -> None:
    def talk() -> None:
        with secure(dial(listener), client_context()) as client:
            client.sendall(sent)
            read(client, 4 if reason == "normal" else 0)
            client.unwrap().close()

    async with encrypted(double, tls) as listener:
        await run(talk)
        assert await reasons(listener) == {reason: 1}


async def test_a_peer_that_closes_without_saying_so_is_told_as_a_broken_connection(tls: TlsOptions) -> None:
    def talk() -> None:
        with secure(dial(listener), client_context()) as client:
            client.sendall(b"3\nab")

    async with encrypted(double, tls) as listener:
        await run(talk)
        assert await reasons(listener) == {"reset": 1}
