"""Options of TCP on a system that does not have them."""

from __future__ import annotations

import socket

import pytest

from esockd_core import InvalidOption, TcpOptions


def test_a_default_that_the_system_does_not_have_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name, raising=False)
    with socket.socket() as sock:
        TcpOptions().apply_to_listener(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    with pytest.raises(InvalidOption, match=r"tcp\.keepalive_count is 5: this system has no TCP_KEEPCNT"):
        TcpOptions(keepalive_count=5)
