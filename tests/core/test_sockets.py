"""Opening sockets: what each address opens on this machine, all or nothing, and what an error tells."""

# ruff: noqa: ASYNC220, ASYNC240 (nothing else runs in these loops that a look at a file could hold up)

from __future__ import annotations

import errno
import logging
import os
import pickle
import re
import resource
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from esockd_core import _holder, _inherited, _internet, _limits, _tcp_options
from esockd_core._address import parse_address
from esockd_core._errors import AddressInUse, CannotBind, EsockdError, InvalidOption
from esockd_core._sockets import ListeningSockets, open_sockets
from esockd_core._tcp_options import TcpOptions
from esockd_core._unix_socket import UnixOptions, locked_path

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


async def opened(address: object, **options: Any) -> ListeningSockets:
    return await open_sockets(parse_address(address), **options)


async def refusal(address: object, **options: Any) -> str:
    """What the error says, after checking that it is one of ours, is an OSError, and leaves no descriptor open."""
    before = open_descriptors()
    with pytest.raises((AddressInUse, CannotBind)) as caught:
        await opened(address, **options)
    caught.value.__traceback__ = None
    assert isinstance(caught.value, EsockdError)
    assert isinstance(caught.value, OSError)
    assert open_descriptors() == before
    return str(caught.value)


def open_descriptors() -> list[str]:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # the descriptor of this listing itself
    return sorted(link for link in links if link.startswith("socket:") or link.endswith(".lock"))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exchange(listener: socket.socket) -> tuple[Any, Any]:
    """Connect to a listener; return the server's view of the client's address, and the client's own."""
    with socket.socket(listener.family) as client:
        client.settimeout(10)
        client.connect(listener.getsockname())
        listener.settimeout(10)
        accepted, peer = listener.accept()
        with accepted:
            return peer, client.getsockname()


# Ports and hosts


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
            with socket.create_connection((host, listening.port or 0), 10):
                listener.settimeout(10)
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
            listening.sockets[0].settimeout(10)
            assert listening.sockets[0].recv(10) == b"x"


@pytest.mark.parametrize("scheme", ["tcp", "tls", "udp", "dtls"])
async def test_the_bound_addresses_are_texts_that_name_the_same_sockets_again(scheme: str) -> None:
    with await opened(f"{scheme}://127.0.0.1:0") as listening:
        (text,) = listening.addresses
        port = listening.port
    with await opened(text) as again:
        assert again.port == port
        assert again.addresses == (text,)


async def test_close_can_be_called_again_and_frees_the_address_at_once() -> None:
    listening = await opened("127.0.0.1:0")
    listening.close()
    listening.close()
    assert all(sock.fileno() == -1 for sock in listening.sockets)
    with await opened(listening.addresses[0]) as again:
        assert again.addresses == listening.addresses


async def test_an_address_opens_again_although_old_connections_linger_in_time_wait() -> None:
    listening = await opened("127.0.0.1:0")
    with socket.create_connection(("127.0.0.1", listening.port or 0), 10):
        accepted, _ = listening.sockets[0].accept()
        accepted.close()  # this side closes first, so this side waits
    listening.close()
    with pytest.raises(AddressInUse):
        await opened(listening.addresses[0], tcp=TcpOptions(reuse_address=False))
    (await opened(listening.addresses[0])).close()


class Intercepted(socket.socket):
    """A socket whose bind can be made to fail, or to act, just before the kernel's."""

    def bind(self, address: Any) -> None:
        self.before_bind(address)
        super().bind(address)

    def before_bind(self, address: Any) -> None:
        raise NotImplementedError


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


async def test_who_listens_between_our_bind_and_our_listen_keeps_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SO_REUSEADDR two sockets may be bound to one address until one of them listens."""
    with closing(socket.socket()) as rival:

        class Overtaken(socket.socket):
            def listen(self, backlog: int = 1024, /) -> None:
                rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
                rival.bind(self.getsockname())
                rival.listen(1)
                super().listen(backlog)

        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setattr(socket, "socket", Overtaken)
        assert f"is already in use by this process (pid {os.getpid()})" in await rival_wins(port)
        assert rival.getsockname() == ("127.0.0.1", port)


async def rival_wins(port: int) -> str:
    with pytest.raises(AddressInUse) as caught:
        await opened(f"127.0.0.1:{port}")
    return str(caught.value)


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


# Errors


@pytest.mark.parametrize(("scheme", "flags"), [("", "-ltnp"), ("udp://", "-lunp")])
async def test_an_address_in_use_is_told_with_its_holder_and_a_way_out(scheme: str, flags: str) -> None:
    kind = "SOCK_DGRAM" if scheme else "SOCK_STREAM"
    holder_code = f"""
        import socket, sys
        sock = socket.socket(socket.AF_INET, socket.{kind})
        sock.bind(("127.0.0.1", 0))
        if not {bool(scheme)}:
            sock.listen()
        print(sock.getsockname()[1], flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(holder_code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        told = await refusal(f"{scheme}{port}")
        expected = rf"127\.0\.0\.1:{port} is already in use by \S+ \(pid {holder.pid}\)\. "
        assert re.fullmatch(expected + rf"Try port 0, or: ss {flags} 'sport = :{port}'", told)
        assert holder.stdin is not None
        holder.stdin.close()


async def test_an_address_that_this_process_holds_itself_is_told_so() -> None:
    with await opened(0) as listening:
        for address in (f"127.0.0.1:{listening.port}", f"[::1]:{listening.port}", f"*:{listening.port}"):
            assert f"is already in use by this process (pid {os.getpid()}). Try port 0" in await refusal(address)


async def test_the_holder_of_everywhere_stands_in_the_way_of_a_host() -> None:
    with await opened("*:0") as listening:
        assert f"by this process (pid {os.getpid()})" in await refusal(f"127.0.0.1:{listening.port}")
        assert f"by this process (pid {os.getpid()})" in await refusal(f"[::1]:{listening.port}")


async def test_a_dual_stack_holder_stands_in_the_way_of_an_ipv4_host() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as holder:
        assert "by this process" in await refusal(f"127.0.0.1:{holder.getsockname()[1]}")


async def test_a_holder_that_cannot_be_seen_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_holder, "PROC", tmp_path)
    with await opened("127.0.0.1:0") as listening:
        told = await refusal(listening.addresses[0])
        assert told.startswith(f"127.0.0.1:{listening.port} is already in use. Try port 0, or: ss -ltnp")


async def test_the_error_keeps_errno_and_survives_pickling() -> None:
    with await opened("127.0.0.1:0") as listening:
        with pytest.raises(AddressInUse) as caught:
            await opened(listening.addresses[0])
        assert caught.value.errno == errno.EADDRINUSE
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), copy.errno, str(copy)) == (AddressInUse, errno.EADDRINUSE, str(caught.value))


async def test_udp_never_shares_a_port_unasked() -> None:
    with await opened("udp://127.0.0.1:0") as listening:
        assert "is already in use" in await refusal(listening.addresses[0])


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
async def test_reuse_port_lets_several_listeners_share_a_port(scheme: str) -> None:
    tcp = TcpOptions(reuse_port=True)
    with (
        await opened(f"{scheme}://127.0.0.1:0", tcp=tcp) as first,
        await opened(first.addresses[0], tcp=tcp) as second,
    ):
        assert first.port == second.port


async def test_an_address_of_another_machine_is_told_so() -> None:
    assert await refusal("198.51.100.1:5000") == (
        "cannot listen on 198.51.100.1:5000: it is not an address of this machine. See: ip address"
    )


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("x")])
async def test_a_name_that_does_not_resolve_is_told_so(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: object, **kwargs: object) -> object:
        raise error

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    reason = "x" if isinstance(error, UnicodeError) else "Name or service not known"
    assert await refusal("no.example:5000") == f'cannot resolve "no.example": {reason}'


async def test_an_interface_that_does_not_exist_is_told_so() -> None:
    assert 'cannot resolve "fe80::1%no-such-if"' in await refusal("[fe80::1%no-such-if]:5000")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "ports below 1024 need root or CAP_NET_BIND_SERVICE. Try a higher one"),
        (errno.ENOBUFS, "No buffer space available"),
    ],
)
async def test_what_the_kernel_refuses_is_told_with_the_reason(
    number: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Intercepted):
        def before_bind(self, address: Any) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Refused)
    assert await refusal("127.0.0.1:80") == f"cannot listen on 127.0.0.1:80: {told}"


async def test_all_or_nothing_when_the_second_address_is_taken() -> None:
    with ExitStack() as stack:
        # A port that only IPv6 has in use: keep its IPv4 twin until the last moment, for other programs want ports too.
        twin = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = twin.getsockname()[1]
        stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
        twin.close()
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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        # The lowest number that is free now is the last one allowed: one socket can be opened, not two.
        free = stack.enter_context(socket.socket()).fileno()
        stack.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with pytest.raises(CannotBind, match=r"cannot listen on \[::1\]:\d+: Too many open files") as caught:
            await opened(0)
        assert caught.value.errno == errno.EMFILE
        socket.socket().close()  # the one that was opened is free again


# Backlog and options


async def test_the_backlog_is_told_to_the_kernel() -> None:
    with await opened("127.0.0.1:0", tcp=TcpOptions(backlog=7)) as listening:
        # tcpi_sacked of a listening socket is its backlog (tcp_get_info in net/ipv4/tcp.c)
        info = listening.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(info[28:32], sys.byteorder) == 7


@pytest.mark.parametrize("address", ["0", "unix:@esockd-test-backlog"])
async def test_a_backlog_that_the_kernel_caps_is_warned_of_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    cap = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with caplog.at_level(logging.WARNING, "esockd_core"):
        (await opened(address, tcp=TcpOptions(backlog=cap))).close()
        assert not caplog.records
        (await opened(address, tcp=TcpOptions(backlog=cap + 1))).close()
    assert [record.getMessage() for record in caplog.records] == [
        f"backlog {cap + 1} is capped by the kernel to {cap}; raise net.core.somaxconn to change that"
    ]


@pytest.mark.parametrize("address", ["0", "unix:@esockd-test-buffers"])
async def test_a_buffer_that_the_kernel_caps_is_warned_of_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    caps = [int(Path(f"/proc/sys/net/core/{name}").read_text()) for name in ("rmem_max", "wmem_max")]
    tcp = TcpOptions(receive_buffer_bytes=caps[0], send_buffer_bytes=caps[1] + 1)
    with caplog.at_level(logging.WARNING, "esockd_core"):
        (await opened(address, tcp=tcp)).close()
    assert [record.getMessage() for record in caplog.records] == [
        f"send_buffer_bytes {caps[1] + 1} is capped by the kernel to {caps[1]}; raise net.core.wmem_max"
    ]


async def test_options_are_set_on_every_socket_before_it_listens() -> None:
    tcp = TcpOptions(keepalive=True, keepalive_idle_s=42)
    with await opened(0, tcp=tcp) as listening:
        values = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) for sock in listening.sockets]
        assert values == [42, 42]


@pytest.mark.parametrize(
    ("address", "wrong", "told"),
    [
        ("udp://0", {"nodelay": False}, "nodelay does not apply to datagrams, which take reuse_port only"),
        ("unix:@esockd-test", {"keepalive": True}, "keepalive does not apply to Unix sockets, which take backlog,"),
    ],
)
async def test_an_option_that_would_do_nothing_is_refused(address: str, wrong: dict[str, Any], told: str) -> None:
    before = open_descriptors()
    with pytest.raises(InvalidOption) as caught:
        await opened(address, tcp=TcpOptions(**wrong))
    assert told in str(caught.value)
    caught.value.__traceback__ = None
    assert open_descriptors() == before


async def test_where_the_cap_of_the_backlog_cannot_be_read_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_tcp_options, "SOMAXCONN", tmp_path / "somaxconn")
    (await opened("127.0.0.1:0", tcp=TcpOptions(backlog=2**31 - 1))).close()
    assert not caplog.records


# Who holds an address, in a /proc made for the purpose


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc in which processes 500, 501 and 502 share a listener on 127.0.0.1:80, and 501 has lost its name."""
    row = "{number}: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 {inode}\n"
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        + row.format(number=0, port=81, state="0A", inode=6)
        + row.format(number=1, port=80, state="0A", inode=7)
        + row.format(number=2, port=82, state="01", inode=8)
    )
    for pid in (500, 501, 502):
        descriptors = tmp_path / str(pid) / "fd"
        descriptors.mkdir(parents=True)
        (descriptors / "0").symlink_to("/dev/null")
        (descriptors / "1").write_text("not a link: gone before it was read")
        (descriptors / "3").symlink_to("socket:[7]")
        if pid != 501:
            descriptors.with_name("comm").write_text("server\n")
    (tmp_path / "600").mkdir()  # another user's: its descriptors cannot be listed
    monkeypatch.setattr(_holder, "PROC", tmp_path)
    return tmp_path


@pytest.mark.skipif(sys.byteorder != "little", reason="the addresses above are as a little-endian kernel writes them")
def test_of_several_holders_the_first_is_named_and_the_others_are_counted(proc: Path) -> None:
    assert _holder.find_holder("127.0.0.1", 80, datagram=False) == "server (pid 500) and 2 more"
    assert _holder.find_holder("0.0.0.0", 80, datagram=False) == "server (pid 500) and 2 more"
    assert _holder.find_holder("127.0.0.2", 80, datagram=False) is None
    assert _holder.find_holder("127.0.0.1", 81, datagram=False) is None
    assert _holder.find_holder("127.0.0.1", 82, datagram=False) is None
    assert _holder.find_holder("127.0.0.1", 80, datagram=True) is None


def test_a_process_without_a_name_is_told_by_its_number(proc: Path) -> None:
    assert _holder.name_process(501) == "a process (pid 501)"


def test_the_search_for_the_holder_ends_when_its_time_is_up(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_holder, "MAX_SEARCH_S", -1.0)
    assert _holder.find_holder("127.0.0.1", 80, datagram=False) is None


# Unix paths


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


async def test_a_unix_path_listens_and_is_removed_by_close(path: Path) -> None:
    listening = await opened(path)
    assert listening.addresses == (f"unix:{path}",)
    assert listening.port is None
    exchange(listening.sockets[0])
    assert names_in(path.parent) == ["s"]
    listening.close()
    listening.close()
    assert names_in(path.parent) == []


async def test_a_relative_path_is_removed_although_the_process_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listening = await opened("unix:relative")
    monkeypatch.chdir("/")
    listening.close()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [None, 0o600, 0o666, 0])
async def test_the_mode_is_exact_whatever_the_umask_and_never_wider(
    path: Path, umask: int, mode: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = 0o660 if mode is None else mode
    just_bound: list[int] = []

    class Recorded(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            just_bound.append(path.stat().st_mode & 0o777)

    monkeypatch.setattr(socket, "socket", Recorded)
    before = os.umask(umask)
    try:
        with await opened(path, unix=UnixOptions(mode=mode)):
            assert path.stat().st_mode & 0o777 == final
    finally:
        os.umask(before)
    assert [seen & ~final for seen in just_bound] == [0]


async def test_owner_and_group_are_given_by_number_or_name(path: Path) -> None:
    with await opened(path, unix=UnixOptions(owner=os.getuid(), group=os.getgid())):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
async def test_root_can_give_the_path_to_another_user(path: Path) -> None:
    with await opened(path, unix=UnixOptions(owner="nobody", group=12345)):
        assert path.owner() == "nobody"
        assert path.stat().st_gid == 12345


async def test_a_failing_change_of_owner_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    told = await refusal(path, unix=UnixOptions(owner=1))
    assert told == f"cannot listen on unix:{path}: Operation not permitted"
    assert names_in(path.parent) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"mode": 0o1000}, "bad mode 512: permission bits from 0 to 0o777"),
        ({"mode": -1}, "bad mode -1"),
        ({"mode": True}, "bad mode True"),
        ({"mode": "660"}, "bad mode '660'"),
        ({"owner": "no such user"}, "no such user"),
        ({"group": "no such group"}, "no such group"),
        ({"owner": -1}, "bad owner -1: a name, or a number from 0"),
        ({"group": 2**32 - 1}, "bad group 4294967295"),
        ({"owner": 1.5}, "bad owner 1.5"),
    ],
)
def test_wrong_options_of_a_path_are_refused_when_built(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        UnixOptions(**wrong)
    assert told in str(caught.value)


async def test_a_stale_path_is_replaced(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with await opened(path) as listening:
        exchange(listening.sockets[0])


@pytest.mark.parametrize("backlog", [0, 10])
async def test_a_live_path_is_never_stolen_even_with_a_full_backlog(path: Path, backlog: int) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as live, ExitStack() as stack:
        live.bind(str(path))
        live.listen(backlog)
        inode = path.stat().st_ino
        if not backlog:
            while stack.enter_context(nonblocking()).connect_ex(str(path)) == 0:
                pass
        by = f" by this process (pid {os.getpid()})" if backlog else ""
        assert await refusal(path) == f"unix:{path} is already in use{by}. Try another path, or: ss -lxp src {path}"
        assert path.stat().st_ino == inode
        assert names_in(path.parent) == ["s"]


def nonblocking() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    return sock


async def test_a_socket_of_another_type_is_not_stolen(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as live:
        live.bind(str(path))
        told = await refusal(path)
        assert "is already in use (probing it: " in told
        assert path.is_socket()


@pytest.mark.parametrize(
    ("what", "told"),
    [("file", "a file is there"), ("folder", "a folder is there"), ("link", "a symbolic link is there")],
)
async def test_what_is_no_socket_is_left_alone(path: Path, what: str, told: str) -> None:
    match what:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("nowhere")
    assert await refusal(path) == f"cannot listen on unix:{path}: {told}, which is not a socket"
    assert names_in(path.parent) == ["s"]
    assert what != "file" or path.read_text() == "precious"


async def test_close_leaves_a_path_that_is_somebody_elses_by_now(path: Path) -> None:
    listening = await opened(path)
    path.unlink()
    with await opened(path) as successor:
        listening.close()
        exchange(successor.sockets[0])


async def test_a_folder_that_does_not_exist_is_told_so(path: Path) -> None:
    assert await refusal(path / "x") == (
        f"cannot listen on unix:{path}/x: cannot create {path}/x.lock: No such file or directory"
    )


async def test_a_path_that_another_process_is_just_opening_is_in_use(path: Path) -> None:
    with locked_path(str(path)):
        assert await refusal(path) == f"unix:{path} is being opened by another process just now"
    (await opened(path)).close()


async def test_a_lock_left_by_a_crash_locks_nothing(path: Path) -> None:
    lock = path.with_name("s.lock")
    lock.touch()
    (await opened(path)).close()
    assert not lock.exists()


async def test_an_abstract_name_listens_and_is_in_use_while_it_does() -> None:
    name = f"unix:@esockd-test-{os.getpid()}"
    with await opened(name) as listening:
        assert listening.addresses == (name,)
        exchange(listening.sockets[0])
        name_of_it = name.removeprefix("unix:")
        assert await refusal(name) == (
            f"{name} is already in use by this process (pid {os.getpid()}). "
            f"Try another path, or: ss -lxp src {name_of_it}"
        )
    (await opened(name)).close()


async def test_an_abstract_name_that_the_kernel_refuses_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refused(Intercepted):
        def before_bind(self, address: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket, "socket", Refused)
    assert await refusal("unix:@x") == "cannot listen on unix:@x: Operation not permitted"


async def test_mode_and_owner_do_not_apply_to_a_port() -> None:
    with pytest.raises(InvalidOption, match=r"mode, owner and group apply to unix:PATH, not to \*:0"):
        await opened("*:0", unix=UnixOptions(mode=0o600))


async def test_mode_and_owner_do_not_apply_to_an_abstract_name() -> None:
    before = open_descriptors()
    with pytest.raises(InvalidOption, match="mode, owner and group do not apply"):
        await opened("unix:@esockd-test", unix=UnixOptions(mode=0o600))
    assert open_descriptors() == before


def test_of_many_that_open_one_stale_path_at_once_exactly_one_wins(path: Path) -> None:
    """Whoever loses says that the path is in use, and the winner's path stays where it is."""
    for _ in range(20):
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(path))
        start = threading.Barrier(8)
        won: list[ListeningSockets] = []
        lost: list[AddressInUse] = []

        def contend(start: threading.Barrier, won: list[ListeningSockets], lost: list[AddressInUse]) -> None:
            start.wait(10)
            try:
                won.append(anyio.run(opened, str(f"unix:{path}")))
            except AddressInUse as error:
                lost.append(error)

        threads = [threading.Thread(target=contend, args=(start, won, lost)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert (len(won), len(lost)) == (1, 7)
        exchange(won[0].sockets[0])
        won[0].close()
        assert names_in(path.parent) == []


# Inherited sockets


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


async def test_a_socket_given_stays_its_owners(server: socket.socket) -> None:
    listening = await opened(server)
    assert listening.addresses == (f"127.0.0.1:{server.getsockname()[1]}",)
    assert listening.sockets[0].fileno() != server.fileno()
    exchange(listening.sockets[0])
    listening.close()
    exchange(server)


async def test_a_descriptor_is_opened_by_number(server: socket.socket) -> None:
    with await opened(f"fd:{server.fileno()}") as listening:
        assert listening.sockets[0].getsockname() == server.getsockname()
    assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_the_family_is_read_from_the_socket_and_a_bound_one_is_made_to_listen(
    family: socket.AddressFamily, path: Path
) -> None:
    with closing(socket.socket(family)) as sock:
        addresses: dict[int, Any] = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
        sock.bind(addresses.get(family, str(path)))
        with await opened(f"fd:{sock.fileno()}") as listening:
            assert listening.sockets[0].family == family
            exchange(listening.sockets[0])
        assert family != socket.AF_UNIX or path.exists()  # not ours to remove


async def test_a_socket_that_listens_keeps_its_owners_backlog_but_takes_the_options(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=3) as sock:
        with await opened(sock, tcp=TcpOptions(backlog=2**31 - 1, keepalive=True)) as listening:
            info = listening.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            assert int.from_bytes(info[28:32], sys.byteorder) == 3
            assert listening.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert not caplog.records


async def test_a_datagram_socket_is_opened_as_udp(server: socket.socket) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        for address in (sock, f"udp://fd:{sock.fileno()}"):
            with await opened(address) as listening:
                assert listening.addresses == (f"udp://127.0.0.1:{sock.getsockname()[1]}",)
        told = await refusal(f"fd:{sock.fileno()}")
        assert "is an AF_INET SOCK_DGRAM socket (127.0.0.1:" in told
        assert told.endswith(f'tcp needs a stream. Did you mean "udp://fd:{sock.fileno()}"?')
    told = await refusal(f"udp://fd:{server.fileno()}")
    assert told.endswith(f'udp needs datagrams. Did you mean "fd:{server.fileno()}"?')


async def test_what_cannot_be_listened_on_is_told_so(server: socket.socket, tmp_path: Path) -> None:
    assert await refusal("fd:99999") == "file descriptor 99999 is not open"
    with (tmp_path / "file").open("w") as file:
        assert await refusal(f"fd:{file.fileno()}") == f"file descriptor {file.fileno()} is not a socket"
    with socket.create_connection(server.getsockname()) as client:
        assert "is already connected: a listening or bound socket is needed" in await refusal(client)
    with closing(socket.socket()) as unbound:
        assert await refusal(unbound) == "the socket given is bound to no address: call bind() first"
    with closing(socket.socket(socket.AF_UNIX)) as unbound:
        assert await refusal(unbound) == "the socket given is bound to no address: call bind() first"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(tmp_path / "d"))
        assert "only internet and Unix stream sockets serve" in await refusal(sock)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as sock:
        sock.bind(str(tmp_path / "q"))
        assert "is an AF_UNIX SOCK_SEQPACKET socket" in await refusal(sock)


async def test_a_socket_that_cannot_listen_any_more_is_told_with_the_reason(server: socket.socket) -> None:
    with closing(socket.socket()) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.close()
        with closing(socket.socket()) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", 0))
            other.bind(bound.getsockname())
            other.listen()
            told = await refusal(bound)
            assert told.startswith(f"cannot listen on 127.0.0.1:{bound.getsockname()[1]}, inherited as 127.0.0.1:")
            assert told.endswith("Address already in use")


ACTIVATED = """
    import anyio, sys
    from esockd_core._address import parse_address
    from esockd_core._sockets import open_sockets

    async def main():
        for text in sys.argv[1:]:
            with await open_sockets(parse_address(text)) as listening:
                print(*listening.addresses)

    anyio.run(main)
"""

LAUNCHER = """
    import os, sys
    fds = [int(fd) for fd in sys.argv[1].split(",")]
    high = [os.dup2(fd, 100 + at) for at, fd in enumerate(fds)]
    for at, fd in enumerate(high):
        os.dup2(fd, 3 + at)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(fds))
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""


def test_socket_activation_passes_sockets_by_name_and_type(server: socket.socket) -> None:
    """A process started as systemd starts it: descriptors from 3 on, named by LISTEN_FDNAMES."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as v6, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        passed = [server.fileno(), udp.fileno(), v6.fileno()]
        run = subprocess.run(
            [
                *(sys.executable, "-S", "-c", textwrap.dedent(LAUNCHER), ",".join(map(str, passed))),
                *(textwrap.dedent(ACTIVATED), "systemd:web", "udp://systemd:web", "tls://systemd:other"),
            ],
            pass_fds=passed,
            env={**os.environ, "LISTEN_FDNAMES": "web:web:other"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert run.stderr == ""
        assert run.stdout.splitlines() == [
            f"127.0.0.1:{server.getsockname()[1]}",
            f"udp://127.0.0.1:{udp.getsockname()[1]}",
            f"tls://[::1]:{v6.getsockname()[1]}",
        ]


@pytest.fixture
def activated(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process as if the server's descriptor and the one after it were the first that systemd passed."""
    monkeypatch.setattr(_inherited, "FIRST_SYSTEMD_FD", server.fileno())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "web")
    return monkeypatch


async def test_a_socket_from_systemd_is_not_passed_on_to_child_processes(
    server: socket.socket, activated: pytest.MonkeyPatch
) -> None:
    os.set_inheritable(server.fileno(), True)
    with await opened("systemd:web") as listening:
        assert not os.get_inheritable(server.fileno())
        assert not os.get_inheritable(listening.sockets[0].fileno())


async def test_sockets_without_names_are_called_unknown(activated: pytest.MonkeyPatch) -> None:
    activated.delenv("LISTEN_FDNAMES")
    (await opened("systemd:unknown")).close()


@pytest.mark.parametrize(
    ("environ", "address", "told"),
    [
        ({"LISTEN_FDS": None}, "systemd:web", "no sockets were passed: LISTEN_FDS is not set"),
        ({"LISTEN_PID": "1"}, "systemd:web", "the sockets were passed to process 1 (LISTEN_PID), this one is "),
        ({"LISTEN_PID": None}, "systemd:web", "the sockets were passed to process unknown"),
        ({"LISTEN_FDS": "x"}, "systemd:web", 'bad LISTEN_FDS "x": a number of descriptors'),
        ({"LISTEN_FDNAMES": "a:b"}, "systemd:web", "LISTEN_FDNAMES has 2 names for 1 descriptors"),
        ({}, "systemd:wbe", 'no socket named "wbe" was passed by systemd: there are web'),
        ({}, "udp://systemd:web", "SOCK_STREAM socket (127.0.0.1:"),
        ({}, "udp://systemd:web", 'udp needs datagrams. Did you mean "systemd:web"?'),
    ],
)
async def test_what_systemd_did_not_pass_is_told_so(
    activated: pytest.MonkeyPatch, environ: dict[str, str | None], address: str, told: str
) -> None:
    for name, value in environ.items():
        if value is None:
            activated.delenv(name)
        else:
            activated.setenv(name, value)
    assert told in await refusal(address)


# Room for connections


@pytest.mark.parametrize(
    ("limit", "requested", "explicit", "expected", "warned"),
    [
        (1024, 960, True, 960, False),
        (1024, 961, True, 960, True),
        (1024, 100_000, False, 960, False),
        (100, 1024, False, 75, False),
        (256, 1024, False, 192, False),
        (1024, None, False, 960, False),
        (None, 10**9, True, 10**9, False),
        (None, None, True, None, False),
    ],
)
def test_max_connections_leaves_room_for_other_files(
    limit: int | None,
    requested: int | None,
    explicit: bool,
    expected: int | None,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = resource.RLIM_INFINITY if limit is None else limit
    monkeypatch.setattr(resource, "getrlimit", lambda _: (raw, raw))
    number, warning = _limits.clamp_max_connections(requested, explicit=explicit)
    assert number == expected
    assert (warning is not None) == warned


def test_lowering_an_explicit_max_connections_is_told_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert _limits.clamp_max_connections(100_000, explicit=True) == (
        960,
        "max_connections 100000 exceeds the open-file limit 1024; using 960. Raise it: ulimit -n",
    )


def test_the_soft_limit_on_open_files_can_be_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert _limits.raise_open_file_limit() == (None if hard == resource.RLIM_INFINITY else hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
