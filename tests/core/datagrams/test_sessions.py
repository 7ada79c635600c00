"""Sessions that survive a change of their peer's address, as esockd's udp_proxy has them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tests.core.conftest import reasons, until
from tests.core.datagrams.udp import Client, assert_all_accounted_for, drops

from esockd_core import CallbackHandler, DatagramConnection, InvalidOption, UdpOptions, open_listener
from esockd_core._connection.datagram import DatagramBase

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"
EVERYWHERE = pytest.mark.parametrize("address", [ADDRESS, "udp://*:0"], ids=["one address", "all"])


def id_of(datagram: bytes) -> bytes | None:
    """Datagrams are b"ID:text", signed ones b"ID:text!"."""
    name, colon, _ = datagram.partition(b":")
    return name if colon else None


async def signed(connection: DatagramConnection) -> None:
    """Answer, and accept a move if the datagram is signed."""
    async for datagram in connection:
        if connection.sender is not None and datagram.endswith(b"!"):
            connection.accept_move()
        await connection.send(b"%d %s" % (connection.id, datagram))


class Signed(CallbackHandler[DatagramConnection]):
    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        if connection.sender is not None and data.endswith(b"!"):
            connection.accept_move()
        connection.send_nowait(b"%d %s" % (connection.id, data))


STYLES = pytest.mark.parametrize("handler", [signed, Signed()], ids=["coroutine", "callback"])


@STYLES
@EVERYWHERE
async def test_a_session_moves_to_the_address_of_a_datagram_that_its_handler_accepts(
    handler: Any, address: str
) -> None:
    async with open_listener("udp", address, handler, udp={"session_id": id_of}) as listener:
        with Client(listener) as old, Client(listener) as new:
            first = await old.ask(b"a:1")
            (connection,) = listener.connections
            assert isinstance(connection, DatagramConnection)
            assert connection.session_id == b"a"
            number = first.partition(b" ")[0]
            new.send(b"a:2")  # not signed: the answer goes to the old address
            assert await old.receive() == number + b" a:2"
            assert connection.peername == old.name
            assert await new.ask(b"a:3!") == number + b" a:3!"
            assert connection.peername == new.name
            assert connection.sender is None
            assert await new.ask(b"no id") == number + b" no id"
            # The old address has lost it: what comes from there without the id is a new peer's.
            assert (await old.ask(b"hello")).partition(b" ")[0] != number
            assert listener.stats().accepted == 2
            assert_all_accounted_for(listener.stats(), sent=5)
            assert old.received() == new.received() == []


async def test_the_program_may_decide_who_takes_a_session_over() -> None:
    asked: list[Any] = []

    def may_move(connection: DatagramConnection, datagram: bytes, peer: Any) -> bool:
        asked.append((connection.session_id, datagram, peer))
        if datagram == b"a:fail":
            raise RuntimeError("as asked")
        return datagram == b"a:yes"

    async with open_listener("udp", ADDRESS, signed, udp={"session_id": id_of, "may_move": may_move}) as listener:
        with Client(listener) as old, Client(listener) as new:
            number = (await old.ask(b"a:1")).partition(b" ")[0]
            new.send(b"a:no", b"a:fail")
            await until(lambda: drops(listener) == {"not_moved": 2})
            assert await new.ask(b"a:yes") == number + b" a:yes"
            assert await new.ask(b"a:2") == number + b" a:2"
            assert asked == [(b"a", datagram, new.name) for datagram in (b"a:no", b"a:fail", b"a:yes")]
        assert_all_accounted_for(listener.stats(), sent=5)


async def test_whoever_has_the_new_address_loses_it() -> None:
    async with open_listener("udp", ADDRESS, signed, udp={"session_id": id_of}) as listener:
        with Client(listener) as one, Client(listener) as other:
            number = (await one.ask(b"a:1")).partition(b" ")[0]
            await other.ask(b"b:1")
            assert await other.ask(b"a:2!") == number + b" a:2!"
            assert await reasons(listener) == {"replaced": 1}
            assert [each.peername for each in listener.connections] == [other.name]
            assert listener._site.sessions.owners.keys() == {b"a"}
            assert (await one.ask(b"b:2")).endswith(b"b:2")  # a new session


async def test_an_id_never_has_two_owners() -> None:
    async def names(connection: DatagramConnection) -> None:
        async for datagram in connection:
            try:
                connection.session_id = datagram
            except InvalidOption as error:
                await connection.send(str(error).encode())
            else:
                await connection.send(b"ok")

    async with open_listener("udp", ADDRESS, names, udp={"session_id": lambda _: None}) as listener:
        with Client(listener) as one, Client(listener) as other:
            assert await one.ask(b"a") == b"ok"
            assert b"another session has it" in await other.ask(b"a")
            assert await one.ask(b"b") == b"ok"
            assert await other.ask(b"a") == b"ok"
            await listener.kill_connections("all")
            await reasons(listener, 2)
        assert listener._site.sessions.owners == {}


async def test_datagrams_from_elsewhere_neither_keep_a_session_alive_nor_fill_its_queue() -> None:
    async def deaf(connection: DatagramConnection) -> None:
        await connection.wait_draining()

    options = UdpOptions(session_id=id_of, queue_datagrams=8, idle_timeout=0.3)
    async with open_listener("udp", ADDRESS, deaf, udp=options) as listener:
        with Client(listener) as owner, Client(listener) as stranger:
            owner.send(b"a:1")
            await until(lambda: listener.connections)
            for _ in range(5):
                stranger.send(b"a:x")
            await until(lambda: drops(listener).get("queue_full") == 4)
            (connection,) = listener.connections
            with anyio.fail_after(30):
                while connection.state == "open":
                    stranger.send(b"a:x")
                    await anyio.sleep(0.02)


async def test_dropped_datagrams_from_elsewhere_hide_no_sign_of_life_of_the_owner() -> None:
    async def deaf(connection: DatagramConnection) -> None:
        await connection.wait_draining()

    options = UdpOptions(session_id=id_of, queue_datagrams=64)
    async with open_listener("udp", ADDRESS, deaf, read_buffer_bytes=1000, udp=options) as listener:
        with Client(listener) as owner, Client(listener) as stranger:
            owner.send(b"a:1")
            await until(lambda: listener.connections)
            (connection,) = listener.connections
            assert isinstance(connection, DatagramBase)
            signs = connection.signs_of_life()
            stranger.send(b"a:" + b"x" * 2000)
            await until(lambda: drops(listener) == {"queue_full": 1})
            assert connection.signs_of_life() == signs
            owner.send(b"a:2")
            await until(lambda: connection.signs_of_life() > signs)


async def test_a_peer_that_the_rules_keep_out_takes_no_session_over() -> None:
    options = UdpOptions(session_id=id_of, may_move=lambda *_: True)
    async with open_listener("udp", ADDRESS, signed, access_rules=["deny 127.0.0.2"], udp=options) as listener:
        with Client(listener) as owner, Client(listener, source="127.0.0.2") as stranger:
            await owner.ask(b"a:1")
            stranger.send(b"a:2")
            await until(lambda: drops(listener) == {"forbidden": 1})
            assert listener.connections[0].peername == owner.name


async def test_a_session_counts_for_the_source_of_its_new_address() -> None:
    options = UdpOptions(session_id=id_of, may_move=lambda *_: True)
    async with open_listener("udp", ADDRESS, signed, max_connections_per_source=1, udp=options) as listener:
        with Client(listener) as old, Client(listener, source="127.0.0.2") as new, Client(listener) as third:
            await old.ask(b"a:1")
            await new.ask(b"a:2")
            assert (await third.ask(b"c:1")).endswith(b"c:1")  # its source has room again
            with Client(listener, source="127.0.0.2") as fourth:
                fourth.send(b"d:1")
                await until(lambda: drops(listener) == {"max_limit": 1})


async def test_a_function_that_fails_reads_no_id(caplog: pytest.LogCaptureFixture) -> None:
    async with open_listener("udp", ADDRESS, signed, udp={"session_id": lambda data: data[5]}) as listener:
        with Client(listener) as client:
            assert (await client.ask(b"x")).endswith(b" x")
    assert "session_id failed" in caplog.text


async def test_a_move_cannot_be_accepted_when_there_is_none() -> None:
    async def moves(connection: DatagramConnection) -> None:
        await connection.receive()
        with pytest.raises(RuntimeError, match="own address"):
            connection.accept_move()
        await connection.send(b"done")

    async with open_listener("udp", ADDRESS, moves, udp={"session_id": id_of}) as listener:
        with Client(listener) as client:
            assert await client.ask(b"a:1") == b"done"


async def coroutine(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("wrong", [{"session_id": 5}, {"session_id": coroutine}, {"may_move": lambda *_: True}])
def test_what_is_no_function_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        UdpOptions(**wrong)
