"""Options of listening sockets: set before they listen, and a warning where the kernel gives less."""

# ruff: noqa: ASYNC240 (nothing else runs in these loops that a look at a file could hold up)

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.core.sockets.conftest import open_descriptors, opened

from esockd_core._errors import InvalidOption
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._platform import socket_limits

pytestmark = pytest.mark.anyio


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
    tcp = TcpOptions(keepalive=True, keepalive_idle_timeout=42)
    with await opened(0, tcp=tcp) as listening:
        values = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) for sock in listening.sockets]
        assert values == [42, 42]


@pytest.mark.parametrize(
    ("address", "wrong", "told"),
    [
        (
            "udp://0",
            {"nodelay": False},
            "tcp.nodelay is False: it does not apply to datagrams.",
        ),
        (
            "unix:@esockd-test",
            {"keepalive": False},
            "tcp.keepalive is False: it does not apply to Unix sockets, which take only backlog,",
        ),
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
    monkeypatch.setattr(socket_limits, "SOMAXCONN", tmp_path / "somaxconn")
    (await opened("127.0.0.1:0", tcp=TcpOptions(backlog=2**31 - 1))).close()
    assert not caplog.records


async def test_mode_and_owner_do_not_apply_to_a_port() -> None:
    with pytest.raises(InvalidOption, match=r"mode, owner and group apply to unix:PATH, not to \*:0"):
        await opened("*:0", unix=UnixOptions(mode=0o600))


async def test_mode_and_owner_do_not_apply_to_an_abstract_name() -> None:
    before = open_descriptors()
    with pytest.raises(InvalidOption, match="mode, owner and group do not apply"):
        await opened("unix:@esockd-test", unix=UnixOptions(mode=0o600))
    assert open_descriptors() == before
