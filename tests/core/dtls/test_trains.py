"""Several datagrams at once over DTLS: their records go in trains, and arrive as the same messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.datagrams.udp import assert_all_accounted_for
from tests.core.dtls.peers import Client, Peer

from esockd_core import BadValueError, CallbackHandler, DatagramConnection, DatagramTooLong, DtlsOptions, open_listener
from esockd_core._connection import port as ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.anyio

SIZES = [100, 100, 100, 40, 200, 200, 7]
MESSAGES = [bytes([number]) * size for number, size in enumerate(SIZES)]
TRAINS = [4, 3]


async def answer(connection: DatagramConnection) -> None:
    async for _ in connection:
        await connection.send_many(MESSAGES)


class Answer(CallbackHandler[DatagramConnection]):
    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        assert connection.send_many_nowait(MESSAGES) == len(MESSAGES)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each train had."""
    lengths: list[int] = []
    send_train = ports.DatagramPort.send_train

    def note(self: ports.DatagramPort, datagrams: Sequence[bytes], address: Any) -> None:
        send_train(self, datagrams, address)
        lengths.append(len(datagrams))

    monkeypatch.setattr(ports.DatagramPort, "send_train", note)
    return lengths


async def messages_of(handler: Any, dtls: DtlsOptions, client: Client | None = None) -> list[bytes]:
    """What a client is sent when it asks once."""
    with anyio.fail_after(60):
        async with open_listener("dtls", "dtls://127.0.0.1:0", handler, dtls=dtls) as listener:
            with Peer(listener, client) as peer:
                (await peer.shake()).send(b"x")
                messages = [await peer.receive() for _ in MESSAGES]
                (connection,) = listener.connections
                assert isinstance(connection, DatagramConnection)
                assert (connection.datagrams_out, connection.bytes_out) == (len(SIZES), sum(SIZES))
            assert_all_accounted_for(listener.stats())
    return messages


@pytest.mark.linux
@pytest.mark.parametrize("handler", [answer, Answer()], ids=["coroutine", "callback"])
async def test_records_of_one_size_go_in_one_train(dtls: DtlsOptions, handler: Any, seen: list[int]) -> None:
    assert await messages_of(handler, dtls) == MESSAGES
    assert seen == TRAINS


@pytest.mark.linux
@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA256"])
async def test_records_are_of_one_size_with_any_cipher(certificates: Path, cipher: str, seen: list[int]) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", ciphers=cipher)
    assert await messages_of(answer, options, Client(ciphers=cipher.encode())) == MESSAGES
    assert seen == TRAINS


async def test_without_trains_records_go_one_by_one(dtls: DtlsOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "takes_trains", lambda _: False)
    assert await messages_of(answer, dtls) == MESSAGES


async def test_a_train_that_the_kernel_refuses_is_sent_one_by_one(
    dtls: DtlsOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "longer than the MTU")

    monkeypatch.setattr(ports.DatagramPort, "send_train", refuse)
    assert await messages_of(answer, dtls) == MESSAGES


async def test_long_messages_go_in_trains_that_one_call_takes(dtls: DtlsOptions) -> None:
    long = [bytes([number]) * 16_384 for number in range(4)]  # what a receive buffer holds

    async def answer_at_length(connection: DatagramConnection) -> None:
        async for _ in connection:
            await connection.send_many(long)

    with anyio.fail_after(60):
        async with open_listener("dtls", "dtls://127.0.0.1:0", answer_at_length, dtls=dtls) as listener:
            with Peer(listener) as peer:
                (await peer.shake()).send(b"x")
                assert [await peer.receive() for _ in long] == long
                assert listener.stats().datagrams_unsent == {}


@pytest.mark.parametrize(("wrong", "error"), [(b"", BadValueError), (bytes(16_385), DatagramTooLong)])
async def test_one_that_no_record_holds_is_an_error_and_those_before_it_are_sent(
    dtls: DtlsOptions, wrong: bytes, error: type[Exception]
) -> None:
    async def answer_wrongly(connection: DatagramConnection) -> None:
        async for _ in connection:
            with pytest.raises(error):
                await connection.send_many([b"a", b"b", wrong, b"c"])
            await connection.send(b"end")

    with anyio.fail_after(60):
        async with open_listener("dtls", "dtls://127.0.0.1:0", answer_wrongly, dtls=dtls) as listener:
            with Peer(listener) as peer:
                (await peer.shake()).send(b"x")
                assert [await peer.receive() for _ in range(3)] == [b"a", b"b", b"end"]
