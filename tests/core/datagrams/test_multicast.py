"""Multicast groups of a datagram listener."""

from __future__ import annotations

import os
import socket

import pytest
from tests.core.datagrams.udp import Client, echo
from tests.ports import steady_port

from esockd_core import CannotBind, InvalidOption, UdpOptions, open_listener, parse_address
from esockd_core._platform.packet_info import IN6_PKTINFO, IPV6_PKTINFO, local_address_of, send_from
from esockd_core._sockets import handed_over
from esockd_core._sockets.opening import open_sockets

pytestmark = pytest.mark.anyio

GROUP = "239.255.77.7"


@pytest.mark.linux
@pytest.mark.parametrize("multicast", [f"{GROUP}%lo", (f"{GROUP}%lo", "ff15::77%lo")])
async def test_datagrams_to_a_group_are_served_from_an_address_of_the_interface(
    multicast: str | tuple[str, ...],
) -> None:
    address = f"udp://*:{steady_port()}"
    async with open_listener("udp", address, echo, udp=UdpOptions(multicast=multicast)) as listener:
        with Client(listener) as client:
            client.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            client.target = (GROUP, listener.port or 0)
            client.send(b"anybody?")
            assert await client.receive_from() == (b"anybody?", ("127.0.0.1", listener.port))
        assert (await listener.plan_options(udp={"multicast": ()})).needs_reopen == ("udp.multicast",)
        await listener.reopen()


@pytest.mark.linux
async def test_sockets_of_the_program_before_this_one_are_members_already() -> None:
    udp = UdpOptions(multicast=(f"{GROUP}%lo", "ff15::77%lo"))
    with await open_sockets(parse_address("udp://*:0"), udp=udp) as before:
        shares = tuple(tuple(os.dup(sock.fileno()) for sock in share) for share in before.shares)
        handed_over.receive([handed_over.HandedOver(before.asked, shares, is_lent=True)])
        with await open_sockets(parse_address("udp://*:0"), udp=udp) as after:
            assert after.addresses == before.addresses


@pytest.mark.parametrize(("to", "local"), [("ff15::77", ""), ("fd00::2", "fd00::2")])
def test_replies_leave_from_no_ipv6_group(to: str, local: str) -> None:
    told = IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, to), 1)
    own = local_address_of([(socket.IPPROTO_IPV6, IPV6_PKTINFO, told)])
    assert own == (socket.inet_pton(socket.AF_INET6, local) if local else b"")
    assert bool(send_from(own)) == bool(local)


async def test_a_socket_of_one_address_joins_no_group() -> None:
    with pytest.raises(InvalidOption, match=r"Listen on udp://\*:PORT"):
        async with open_listener("udp", "udp://127.0.0.1:0", echo, udp={"multicast": [GROUP]}):
            pass


async def test_a_group_on_an_interface_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(CannotBind, match=f"cannot join {GROUP}%nowhere"):
        async with open_listener("udp", "udp://*:0", echo, udp={"multicast": [f"{GROUP}%nowhere"]}):
            pass


@pytest.mark.parametrize("wrong", ["127.0.0.1", ("ff15::zz",), (5,), 5])
def test_what_is_no_group_is_an_error(wrong: object) -> None:
    with pytest.raises(InvalidOption, match="multicast groups such as"):
        UdpOptions(multicast=wrong)  # type: ignore[arg-type]
