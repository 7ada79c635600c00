"""Options of a datagram listener: which apply, which are an error, and which change live."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.datagrams.udp import Client, Echo, drops, echo
from tests.ports import steady_address

from esockd_core import (
    InvalidOption,
    ListenerOptions,
    UdpOptions,
    merge_options,
    open_listener,
)

pytestmark = pytest.mark.anyio

ADDRESS = "udp://127.0.0.1:0"
STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


async def test_a_listener_of_datagrams_stays_one() -> None:
    async with open_listener("udp", ADDRESS, echo) as listener, open_listener("tcp", "127.0.0.1:0", echo) as streams:
        with pytest.raises(InvalidOption, match="of different kinds"):
            await listener.reopen("127.0.0.1:0")
        with pytest.raises(InvalidOption, match="of different kinds"):
            await streams.reopen("udp://127.0.0.1:0")


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"acceptors": 2}, "acceptors"),
        ({"when_full": "backlog"}, "when_full"),
        ({"when_limited": "backlog"}, "when_limited"),
        ({"refuse_with": "rst"}, "refuse_with"),
        ({"send_timeout": 5}, "send_timeout"),
        ({"linger_timeout": 5}, "linger_timeout"),
        ({"write_buffer_bytes": 5}, "write_buffer_bytes"),
        ({"tcp": {"nodelay": False}}, "tcp.nodelay"),
        ({"unix": {"mode": 0o600}}, "unix"),
        ({"proxy_protocol": "use"}, "proxy_protocol.policy"),
        ({"proxy_protocol": True, "udp": {"health_check": (b"a", b"b")}}, "udp.health_check"),
    ],
)
async def test_an_option_that_does_nothing_for_datagrams_is_an_error(options: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        async with open_listener("udp", ADDRESS, echo, **options):
            pass
    assert raised.value.option == option
    async with open_listener("udp", ADDRESS, echo) as listener:
        with pytest.raises(InvalidOption) as raised:
            await listener.set_options(**options)
        assert raised.value.option == option


async def test_options_of_datagrams_are_an_error_for_streams() -> None:
    with pytest.raises(InvalidOption, match=r"udp\.queue_datagrams is 5: it does not apply to streams"):
        async with open_listener("tcp", "127.0.0.1:0", echo, udp={"queue_datagrams": 5}):
            pass


async def test_options_of_datagrams_change_live() -> None:
    async with open_listener("udp", f"udp://{steady_address()}", echo) as listener:
        plan = await listener.set_options(udp={"receive_buffer_bytes": 50_000, "max_datagram_bytes": 3})
        assert plan.needs_reopen == ()
        assert (await listener.get_options())["udp.receive_buffer_bytes"] == 50_000
        with Client(listener) as client:
            client.send(b"four")
            assert await client.ask(b"333") == b"333"
            assert drops(listener) == {"too_long": 1}
            await listener.set_options(udp={"receive_buffer_bytes": None, "reuse_port": True}, reopen=True)
            assert await client.ask(b"333") == b"333"


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle_timeout": 0},
        {"queue_datagrams": 0},
        {"max_datagram_bytes": 65_536},
        {"receive_buffer_bytes": 0},
        {"reuse_port": 1},
    ],
)
def test_a_wrong_value_of_an_option_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        UdpOptions(**wrong)
    with pytest.raises(InvalidOption, match="it takes a UdpOptions"):
        ListenerOptions(udp=wrong)  # type: ignore[arg-type]
    assert merge_options(None, {"udp": {"queue_datagrams": 7}}).udp == UdpOptions(queue_datagrams=7)
