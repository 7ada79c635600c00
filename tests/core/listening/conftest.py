"""What the tests of listening share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import SocketStream

    from esockd_core import Listener, StreamConnection


async def say_goodbye(connection: StreamConnection) -> None:
    await connection.wait_draining()
    await connection.send(b"goodbye")


def has_accepted(listener: Listener, number: int) -> bool:
    return listener.stats().accepted == number


async def ask(client: SocketStream, question: bytes = b"hello") -> bytes:
    """What an echo answers, or another handler at once."""
    await client.send(question)
    return await client.receive()


async def ask_echo(client: SocketStream, question: bytes) -> bytes:
    """As much of an answer as of a question."""
    await client.send(question)
    answer = b""
    while len(answer) < len(question):
        answer += await client.receive()
    return answer


async def is_refused(client: SocketStream) -> bool:
    try:
        await client.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return True
    return False
