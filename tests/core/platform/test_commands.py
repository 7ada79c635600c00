"""Hints name programs that the system has."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from esockd_core._platform import commands

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", request.param)
        importlib.reload(commands)
        yield
    importlib.reload(commands)


@pytest.mark.parametrize(
    ("on", "port", "path", "addresses"),
    [
        ("linux", "ss -ltnp 'sport = :5000'", "ss -lxp src /run/app", "ip address"),
        ("darwin", "lsof -nP -iTCP:5000", "lsof /run/app", "ifconfig"),
        ("freebsd14", "sockstat -l -p 5000", "lsof /run/app", "ifconfig"),
        ("openbsd7", "lsof -nP -iTCP:5000", "lsof /run/app", "ifconfig"),
    ],
    indirect=["on"],
)
def test_each_system_has_its_own_programs(on: None, port: str, path: str, addresses: str) -> None:
    assert commands.show_port_holder(5000, datagram=False) == port
    assert commands.show_path_holder("/run/app") == path
    assert addresses == commands.SHOW_ADDRESSES
