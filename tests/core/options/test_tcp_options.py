"""TCP options: refused when built if wrong, set once on the listener, inherited by every connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from tests.patience import PATIENCE_S

from esockd_core._errors import EsockdError, InvalidOption
from esockd_core._options.tcp import TcpOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def accepted_from(options: TcpOptions, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A connection accepted by a listener on which the options were set, and nothing set on itself."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        options.apply_to_listener(listener)
        addresses: dict[int, Any] = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
        listener.bind(addresses.get(family, ""))
        listener.listen(1)
        client = stack.enter_context(socket.socket(family))
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        yield stack.enter_context(accepted)


def tcp(option: int) -> Callable[[socket.socket], int]:
    return lambda sock: sock.getsockopt(socket.IPPROTO_TCP, option)


def sol(option: int) -> Callable[[socket.socket], int]:
    return lambda sock: sock.getsockopt(socket.SOL_SOCKET, option)


def linger(sock: socket.socket) -> tuple[int, ...]:
    return struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(
    ("options", "read", "expected"),
    [
        (TcpOptions(), tcp(socket.TCP_NODELAY), 1),
        (TcpOptions(nodelay=False), tcp(socket.TCP_NODELAY), 0),
        (TcpOptions(), sol(socket.SO_KEEPALIVE), 1),
        (TcpOptions(), tcp(socket.TCP_KEEPIDLE), 15),
        (TcpOptions(), tcp(socket.TCP_KEEPINTVL), 15),
        (TcpOptions(), tcp(socket.TCP_KEEPCNT), 9),
        (TcpOptions(keepalive=False), sol(socket.SO_KEEPALIVE), 0),
        (TcpOptions(keepalive_idle_timeout=77), tcp(socket.TCP_KEEPIDLE), 77),
        (TcpOptions(keepalive_interval=13), tcp(socket.TCP_KEEPINTVL), 13),
        (TcpOptions(keepalive_count=5), tcp(socket.TCP_KEEPCNT), 5),
        (TcpOptions(user_timeout=1.5), tcp(socket.TCP_USER_TIMEOUT), 1500),
        (TcpOptions(reset_on_close=True), linger, (1, 0)),
        (TcpOptions(), linger, (0, 0)),
        (TcpOptions(receive_buffer_bytes=20_000), sol(socket.SO_RCVBUF), 40_000),
        (TcpOptions(send_buffer_bytes=30_000), sol(socket.SO_SNDBUF), 60_000),
    ],
)
def test_a_connection_inherits_from_its_listener(
    family: int, options: TcpOptions, read: Callable[[socket.socket], Any], expected: object
) -> None:
    with accepted_from(options, family) as accepted:
        assert read(accepted) == expected


class Untouchable:
    """Stands for a connection on which no system call is made."""

    family = socket.AF_INET

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was used")


@pytest.mark.parametrize(
    "options",
    [
        TcpOptions(),
        TcpOptions(keepalive=True, keepalive_idle_timeout=1, keepalive_interval=1, keepalive_count=1),
        TcpOptions(
            receive_buffer_bytes=4096, send_buffer_bytes=4096, user_timeout=1, reset_on_close=True, tune_buffer=True
        ),
    ],
)
def test_accepting_a_tcp_connection_costs_no_system_call_for_options(options: TcpOptions) -> None:
    options.apply_to_connection(Untouchable())  # type: ignore[arg-type]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nodelay_off_holds_although_the_event_loops_turn_it_on(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    options = TcpOptions(nodelay=False)
    seen: list[int] = []

    async def main() -> None:
        made = asyncio.get_running_loop().create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                sock = transport.get_extra_info("socket")
                seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                options.apply_to_connection(sock)
                seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()
                made.set_result(None)

        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        for listening in server.sockets:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.wait_for(made, 10)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert seen == [1, 0]  # the 1 is why apply_to_connection has anything to do


def test_a_unix_connection_inherits_no_buffers_and_is_given_them() -> None:
    options = TcpOptions(receive_buffer_bytes=20_000, send_buffer_bytes=30_000)
    with accepted_from(options, socket.AF_UNIX) as accepted:
        assert sol(socket.SO_SNDBUF)(accepted) != 60_000
        options.apply_to_connection(accepted)
        assert sol(socket.SO_RCVBUF)(accepted) == 40_000
        assert sol(socket.SO_SNDBUF)(accepted) == 60_000


def test_a_connection_deferred_until_data_arrive_is_not_handed_over_before() -> None:
    options = TcpOptions(defer_accept_timeout=30)
    with socket.socket() as listener, socket.socket() as client:
        options.apply_to_listener(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.setblocking(False)
        client.connect(listener.getsockname())
        with pytest.raises(BlockingIOError):
            listener.accept()
        client.sendall(b"x")
        listener.settimeout(PATIENCE_S)
        accepted, _ = listener.accept()
        accepted.close()


def test_the_read_chunk_is_the_default_unless_tuned_to_the_kernels_buffers() -> None:
    with socket.socket() as sock:
        TcpOptions(receive_buffer_bytes=100_000, send_buffer_bytes=50_000).apply_to_listener(sock)
        assert TcpOptions().read_chunk_bytes(sock, 65536) == 65536
        assert TcpOptions(tune_buffer=True).read_chunk_bytes(sock, 65536) == 200_000
        assert TcpOptions(tune_buffer=True).read_chunk_bytes(sock, 300_000) == 300_000


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"backlog": 0}, "tcp.backlog is 0: it takes a whole number, 1 to 2147483647"),
        ({"backlog": None}, "tcp.backlog is None"),
        ({"backlog": True}, "tcp.backlog is True"),
        ({"backlog": 10.0}, "tcp.backlog is 10.0: it takes a whole number"),
        ({"nodelay": 1}, "tcp.nodelay is 1: it takes True or False"),
        ({"keepalive": None}, "tcp.keepalive is None: it takes True or False"),
        ({"receive_buffer_bytes": 0}, "tcp.receive_buffer_bytes is 0: it takes a whole number, 1"),
        ({"send_buffer_bytes": "64K"}, "tcp.send_buffer_bytes is '64K': it takes a whole number"),
        (
            {"keepalive": True, "keepalive_idle_timeout": 32768},
            "tcp.keepalive_idle_timeout is 32768: it takes whole seconds, 1 to 32767",
        ),
        ({"keepalive": True, "keepalive_interval": 0.5}, "tcp.keepalive_interval is 0.5: it takes whole seconds"),
        ({"keepalive": True, "keepalive_count": 128}, "tcp.keepalive_count is 128: it takes a whole number, 1 to 127"),
        ({"user_timeout": 0}, "tcp.user_timeout is 0: it takes seconds, 0.001"),
        ({"user_timeout": float("nan")}, "tcp.user_timeout is nan"),
        ({"user_timeout": float("inf")}, "tcp.user_timeout is inf"),
        ({"reset_on_close": 0}, "tcp.reset_on_close is 0: it takes True or False"),
        ({"defer_accept_timeout": -1}, "tcp.defer_accept_timeout is -1"),
    ],
)
def test_a_wrong_value_is_refused_when_the_options_are_built(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        TcpOptions(**wrong)
    assert told in str(refusal.value)
    assert isinstance(refusal.value, EsockdError)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize(
    "options",
    [
        TcpOptions(keepalive=True, keepalive_idle_timeout=32767, keepalive_interval=32767, keepalive_count=127),
        TcpOptions(keepalive=True, keepalive_idle_timeout=1, keepalive_interval=1, keepalive_count=1),
        TcpOptions(user_timeout=0.001),
        TcpOptions(user_timeout=2147483),
        TcpOptions(receive_buffer_bytes=1, send_buffer_bytes=1),
        TcpOptions(defer_accept_timeout=65536),
    ],
)
def test_the_kernel_takes_every_value_at_the_bounds(options: TcpOptions) -> None:
    with accepted_from(options) if options.defer_accept_timeout is None else socket.socket() as sock:
        options.apply_to_listener(sock)
