"""Unix sockets on systems that do them in another way than Linux."""

# ruff: noqa: ASYNC240 (nothing else runs in these loops that a look at a file could hold up)

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.sockets.conftest import opened, refusal

from esockd_core._errors import InvalidOption
from esockd_core._options.unix import UnixOptions
from esockd_core._platform import peer_process, unix_sockets
from esockd_core._sockets import opening

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_a_name_without_a_file_is_refused_where_only_linux_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "HAS_ABSTRACT_NAMES", False)
    with pytest.raises(InvalidOption) as caught:
        await opened("unix:@name")
    assert str(caught.value) == (
        "address is 'unix:@name': only Linux has Unix sockets without a file. Write unix:/path."
    )


async def test_a_path_that_is_too_long_for_this_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_PATH_BYTES", 10)
    with pytest.raises(InvalidOption, match=f"the path has {len(str(path))} bytes; on this system"):
        await opened(path)


@pytest.mark.parametrize("umask", [0, 0o777])
async def test_where_sockets_have_no_mode_the_umask_keeps_the_path_from_others(
    path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_sockets, "IS_LINUX", False)
    just_bound: list[int] = []

    class Recorded(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            just_bound.append(path.stat().st_mode & 0o777)

    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", Recorded)
            listening = await opened(path, unix=UnixOptions(mode=0o666))
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    with listening:
        assert just_bound == [0o600]
        assert path.stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize(("system", "told"), [("darwin", True), ("freebsd14", False)])
async def test_the_holder_of_a_path_is_told_where_the_system_knows_it(
    path: Path, system: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_process, "PLATFORM", system)
    monkeypatch.setattr(peer_process, "SOL_LOCAL", socket.SOL_SOCKET)
    monkeypatch.setattr(peer_process, "LOCAL_PEERCRED", socket.SO_PEERCRED)
    monkeypatch.setattr(peer_process, "LOCAL_PEERPID", socket.SO_PEERCRED)
    with closing(socket.socket(socket.AF_UNIX)) as live:
        live.bind(str(path))
        live.listen()
        assert (f"in use by this process (pid {os.getpid()})" in await refusal(path)) is told
