"""An address that cannot be had: who holds it, what else is wrong with it, and a way out."""

# ruff: noqa: ASYNC220 (nothing else runs in these loops that a look at a file could hold up)

from __future__ import annotations

import errno
import os
import pickle
import re
import socket
import subprocess
import sys
import textwrap
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.sockets.conftest import Intercepted, opened, refusal
from tests.ports import steady_port

from esockd_core._address import parse_address
from esockd_core._errors import AddressInUse, CannotBind
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._platform import low_ports
from esockd_core._platform import port_holder as _holder
from esockd_core._sockets import handed_over, shared
from esockd_core._sockets.handed_over import HandedOver
from esockd_core._sockets.internet import require_permission

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _enough_time_to_look_at_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for a holder ends in time also on a busy machine, and then names nobody."""
    monkeypatch.setattr(_holder, "MAX_SEARCH_S", 60.0)


async def test_who_listens_between_our_bind_and_our_listen_keeps_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SO_REUSEADDR two sockets may be bound to one address until one of them listens."""
    with closing(socket.socket()) as rival:

        class Overtaken(socket.socket):
            def listen(self, backlog: int = 1024, /) -> None:
                rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
                rival.bind(self.getsockname())
                rival.listen(1)
                super().listen(backlog)

        port = steady_port()
        monkeypatch.setattr(socket, "socket", Overtaken)
        assert f"is already in use by this process (pid {os.getpid()})" in await rival_wins(port)
        assert rival.getsockname() == ("127.0.0.1", port)


async def rival_wins(port: int) -> str:
    with pytest.raises(AddressInUse) as caught:
        await opened(f"127.0.0.1:{port}")
    return str(caught.value)


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
    options = {"tcp": TcpOptions(reuse_port=True)} if scheme == "tcp" else {"udp": UdpOptions(reuse_port=True)}
    with (
        await opened(f"{scheme}://127.0.0.1:0", **options) as first,
        await opened(first.addresses[0], **options) as second,
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
        (errno.EPERM, "Operation not permitted"),
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


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (None, "ports below 1024 need root or CAP_NET_BIND_SERVICE. Try a higher one."),
        ("81\n", "ports below 81 need root or CAP_NET_BIND_SERVICE. Try a higher one."),
        ("80\n", "Permission denied"),
    ],
)
async def test_a_port_that_needs_a_privilege_is_told_with_the_first_that_does_not(
    setting: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Intercepted):
        def before_bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(low_ports, "SETTING", tmp_path / "setting")
    if setting is not None:
        (tmp_path / "setting").write_text(setting)
    monkeypatch.setattr(socket, "socket", Refused)
    assert await refusal("127.0.0.1:80") == f"cannot listen on 127.0.0.1:80: {told}"


@pytest.mark.parametrize(("setting", "asks"), [("80", False), ("81", True)])
async def test_the_privilege_is_asked_for_where_the_port_needs_it(
    setting: str, asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Intercepted):
        def before_bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(low_ports, "SETTING", tmp_path / "setting")
    (tmp_path / "setting").write_text(setting)
    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(CannotBind, match="ports below 81 need") if asks else nullcontext():
        await require_permission(parse_address("127.0.0.1:80"))


@pytest.mark.linux
async def test_more_workers_than_the_program_before_on_sockets_of_another_user_are_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(shared, "bind_endpoint", refuse)
    with socket.create_server(("127.0.0.1", 0)) as before:
        handed_over.receive([HandedOver("127.0.0.1:0", ((os.dup(before.fileno()),),), is_lent=True)])
        with pytest.raises(CannotBind, match=r"for 2 processes: Address already in use\..* stop the program"):
            await shared.open_shared_sockets(parse_address("127.0.0.1:0"), 2, TcpOptions(), UnixOptions())
