"""Options and limits of sockets that differ between systems."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from esockd_core import InvalidOption, TcpOptions
from esockd_core._platform import socket_limits
from esockd_core._platform.errnos import errnos
from esockd_core._platform.socket_limits import granted_buffer_bytes


@pytest.mark.parametrize(
    ("option", "value", "missing", "reason"),
    [
        ("user_timeout", 5, "TCP_USER_TIMEOUT", "this system has no TCP_USER_TIMEOUT: only Linux has it"),
        ("defer_accept_timeout", 5, "TCP_DEFER_ACCEPT", "this system has no TCP_DEFER_ACCEPT: only Linux has it"),
        ("keepalive_count", 5, "TCP_KEEPCNT", "this system has no TCP_KEEPCNT: Linux, macOS and FreeBSD have it"),
    ],
)
def test_an_option_that_the_system_does_not_have_is_refused_with_who_has_it(
    option: str, value: int, missing: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"keepalive": True, option: value}
    TcpOptions(**options)
    monkeypatch.delattr(socket, missing)
    with pytest.raises(InvalidOption) as caught:
        TcpOptions(**options)
    assert str(caught.value) == f"tcp.{option} is {value}: {reason}."


def test_macos_has_another_name_for_the_idle_time_of_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    number = socket.TCP_KEEPIDLE
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", number, raising=False)
    with socket.socket() as sock, monkeypatch.context() as patch:
        patch.delattr(socket, "TCP_KEEPIDLE")
        TcpOptions(keepalive=True, keepalive_idle_timeout=77).apply_to_listener(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, number) == 77


@pytest.mark.parametrize(("doubles", "expected"), [(True, 20_000), (False, 40_000)])
def test_only_linux_tells_twice_the_size_of_a_buffer(
    doubles: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_limits, "DOUBLES_BUFFERS", doubles)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        assert granted_buffer_bytes(sock, socket.SO_SNDBUF) == expected


def test_errors_that_the_system_does_not_have_are_left_out() -> None:
    assert errnos("EPERM", "EWOULDHAVEBEEN") == {errno.EPERM}
