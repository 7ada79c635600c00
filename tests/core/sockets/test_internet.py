"""What an internet address opens on this machine: which sockets, on which port, all or none of them."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, closing
from typing import Any

import anyio
import pytest
from tests.core.sockets.conftest import Intercepted, exchange, opened, refusal
from tests.open_files import only_files_left
from tests.patience import PATIENCE_S
from tests.ports import steady_address, steady_port

from esockd_core._errors import AddressInUse, CannotBind
from esockd_core._options.tcp import TcpOptions
from esockd_core._sockets import internet as _internet

pytestmark = pytest.mark.anyio


async def test_a_bare_port_listens_on_both_loopback_addresses_and_port_0_is_one_port_for_both() -> None:
    with await opened(0) as listening:
        assert [sock.getsockname()[:2] for sock in listening.sockets] == [
            ("127.0.0.1", listening.port),
            ("::1", listening.port),
        ]
        assert listening.port != 0
        assert listening.addresses == (f"127.0.0.1:{listening.port}", f"[::1]:{listening.port}")
        assert all(not sock.getblocking() for sock in listening.sockets)
        assert all(not sock.get_inheritable() for sock in listening.sockets)
        for sock in listening.sockets:
            peer, own = exchange(sock)
            assert peer == own


async def test_a_star_listens_everywhere_and_every_client_shows_its_own_kind_of_address() -> None:
    with await opened("*:0") as listening:
        assert [sock.getsockname()[0] for sock in listening.sockets] == ["0.0.0.0", "::"]
        assert len({sock.getsockname()[1] for sock in listening.sockets}) == 1
        v4, v6 = listening.sockets
        for host, listener in (("127.0.0.1", v4), ("::1", v6)):
            with socket.create_connection((host, listening.port or 0), PATIENCE_S):
                listener.settimeout(PATIENCE_S)
                accepted, peer = listener.accept()
                accepted.close()
                assert peer[0] == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"])
async def test_a_host_listens_on_its_addresses_only(host: str) -> None:
    with await opened(f"{host}:0") as listening:
        expected = {a[4][0] for a in socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM)}
        assert {sock.getsockname()[0] for sock in listening.sockets} == expected
        peer, own = exchange(listening.sockets[0])
        assert peer == own


async def test_a_name_with_several_addresses_opens_a_socket_for_each_on_one_port_and_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def getaddrinfo(host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:  # noqa: A002
        assert (host, type) == ("many.example", socket.SOCK_STREAM)
        entries = [(socket.AF_INET, ("127.0.0.2", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
        entries += [(socket.AF_INET, ("127.0.0.3", port)), (socket.AF_INET, ("127.0.0.2", port))]
        return [(family, type, 6, "", sockaddr) for family, sockaddr in entries]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    with await opened("many.example:0") as listening:
        assert [sock.getsockname()[0] for sock in listening.sockets] == ["127.0.0.2", "::1", "127.0.0.3"]
        assert {sock.getsockname()[1] for sock in listening.sockets} == {listening.port}


async def test_udp_opens_bound_datagram_sockets() -> None:
    with await opened("udp://0") as listening:
        assert [sock.type for sock in listening.sockets] == [socket.SOCK_DGRAM] * 2
        assert listening.addresses == (f"udp://127.0.0.1:{listening.port}", f"udp://[::1]:{listening.port}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", ("127.0.0.1", listening.port or 0))
            listening.sockets[0].settimeout(PATIENCE_S)
            assert listening.sockets[0].recv(10) == b"x"


@pytest.mark.parametrize("scheme", ["tcp", "tls", "udp", "dtls"])
async def test_the_bound_addresses_are_texts_that_name_the_same_sockets_again(scheme: str) -> None:
    with await opened(f"{scheme}://{steady_address()}") as listening:
        (text,) = listening.addresses
        port = listening.port
    with await opened(text) as again:
        assert again.port == port
        assert again.addresses == (text,)


async def test_close_can_be_called_again_and_frees_the_address_at_once() -> None:
    listening = await opened(steady_address())
    listening.close()
    listening.close()
    assert all(sock.fileno() == -1 for sock in listening.sockets)
    with await opened(listening.addresses[0]) as again:
        assert again.addresses == listening.addresses


async def test_an_address_opens_again_although_old_connections_linger_in_time_wait() -> None:
    listening = await opened(steady_address())
    with socket.create_connection(("127.0.0.1", listening.port or 0), PATIENCE_S):
        accepted, _ = listening.sockets[0].accept()
        accepted.close()  # this side closes first, so this side waits
    listening.close()
    with pytest.raises(AddressInUse):
        await opened(listening.addresses[0], tcp=TcpOptions(reuse_address=False))
    (await opened(listening.addresses[0])).close()


async def test_port_0_tries_again_while_the_port_found_is_taken_for_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    occupants: list[socket.socket] = []
    tried: list[int] = []

    class Taken(Intercepted):
        def before_bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                tried.append(address[1])
                if len(tried) <= 3:
                    occupants.append(real_server(("::1", address[1])))

    def real_server(address: tuple[str, int]) -> socket.socket:
        with pytest.MonkeyPatch.context() as unpatched:
            unpatched.setattr(socket, "socket", original)
            return socket.create_server(address, family=socket.AF_INET6)

    original = socket.socket
    monkeypatch.setattr(socket, "socket", Taken)
    with ExitStack() as stack:
        listening = stack.enter_context(await opened(0))
        for occupant in occupants:
            stack.enter_context(occupant)
        assert len(tried) == 4
        assert {sock.getsockname()[1] for sock in listening.sockets} == {tried[-1]}


async def test_port_0_gives_up_after_a_bounded_number_of_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []

    class AlwaysTaken(Intercepted):
        def before_bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                tries.append(address)
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(socket, "socket", AlwaysTaken)
    assert "is already in use. Try again: 16 free ports in a row were taken elsewhere, or: ss" in await refusal(0)
    assert len(tries) == _internet.PORT_ATTEMPTS


@pytest.mark.parametrize("address", ["0", "*:0", "localhost:0", "udp://0"])
@pytest.mark.parametrize("lacks", ["AF_INET6", "the address ::1"])
async def test_a_machine_without_ipv6_does_with_ipv4(address: str, lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(Intercepted):
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any) -> None:
            if family == socket.AF_INET6 and lacks == "AF_INET6":
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *args, **kwargs)

        def before_bind(self, address: Any) -> None:
            if address[0] == "::1":
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with await opened(address) as listening:
        assert listening.sockets[0].family == socket.AF_INET
        assert lacks != "AF_INET6" or len(listening.sockets) == 1
    assert "cannot listen on [::1]:0: " in await refusal("[::1]:0")


async def test_all_or_nothing_when_the_second_address_is_taken() -> None:
    port = steady_port()
    with socket.create_server(("::1", port), family=socket.AF_INET6):
        assert f"[::1]:{port} is already in use" in await refusal(port)
        with socket.create_server(("127.0.0.1", port)):
            pass  # nothing of ours is left there


async def test_nobody_can_connect_before_every_address_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[int] = []

    class Probed(Intercepted):
        def before_bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                with closing(socket.socket()) as probe:
                    results.append(probe.connect_ex(("127.0.0.1", address[1])))

    monkeypatch.setattr(socket, "socket", Probed)
    (await opened(0)).close()
    assert results == [errno.ECONNREFUSED]


async def test_no_descriptor_is_left_when_there_are_too_few() -> None:
    # One socket can be opened, not two.
    refused = pytest.raises(CannotBind, match=r"cannot listen on \[::1\]:\d+: Too many open files")
    with only_files_left(1):
        with refused as caught:
            await opened(0)
        assert (caught.value.errno, caught.value.hint) == (errno.EMFILE, "Raise the limit on open files: ulimit -n")
        socket.socket().close()  # the one that was opened is free again
