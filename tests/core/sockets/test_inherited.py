"""Sockets that somebody else opened: the program itself, its parent, systemd."""

# ruff: noqa: ASYNC240 (nothing else runs in these loops that a look at a file could hold up)

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.sockets.conftest import exchange, opened, refusal

from esockd_core._options.tcp import TcpOptions
from esockd_core._sockets import inherited as _inherited

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


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
        assert told.endswith("tcp needs a stream.")
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
    from esockd_core._sockets.opening import open_sockets

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
    activated.setenv("LISTEN_FDNAMES", "")
    (await opened("systemd:unknown")).close()


@pytest.mark.parametrize(
    ("environ", "address", "told"),
    [
        ({"LISTEN_FDS": None}, "systemd:web", "no sockets were passed: LISTEN_FDS is not set"),
        ({"LISTEN_PID": "1"}, "systemd:web", "the sockets were passed to process 1 (LISTEN_PID), this one is "),
        ({"LISTEN_PID": None}, "systemd:web", "the sockets were passed to process unknown"),
        ({"LISTEN_FDS": "x"}, "systemd:web", 'bad LISTEN_FDS "x": a number of descriptors'),
        ({"LISTEN_FDNAMES": "a:b"}, "systemd:web", "LISTEN_FDNAMES has 2 names for 1 descriptors"),
        ({}, "systemd:wbe", 'passed no socket named "wbe", but "web". Did you mean "systemd:web"?'),
        (
            {"LISTEN_FDNAMES": "unknown"},
            "systemd:web",
            'A socket without a name is "systemd:unknown"; FileDescriptorName=',
        ),
        ({"LISTEN_FDNAMES": None}, "systemd:web", 'A socket without a name is "systemd:unknown"; FileDescriptorName='),
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
