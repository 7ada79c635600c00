"""Who holds an address, in a /proc made for the purpose."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from esockd_core._platform import port_holder as _holder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


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
