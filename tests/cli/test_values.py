"""How the values of options are read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from esockd_cli._errors import UsageError
from esockd_cli._summary import format_bytes
from esockd_cli._values import MAX_CONTENT_BYTES, parse_content, parse_rule, parse_rules

if TYPE_CHECKING:
    from pathlib import Path


def test_content_is_the_text_itself_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\xff")
    assert parse_content("static", "a\\n:b") == b"a\\n:b"
    assert parse_content("static", f"@{tmp_path}/file") == b"\x00\xff"
    assert parse_content("static", "\udcff") == b"\xff"


def test_content_is_neither_waited_for_nor_without_bound(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(MAX_CONTENT_BYTES + 1))
    for file, reason in {
        str(tmp_path / "pipe"): "it is a pipe or a device, not a file",
        "/dev/zero": "it is a pipe or a device, not a file",
        str(tmp_path / "large"): "it holds more than 1 MiB",
        str(tmp_path): "Is a directory",
    }.items():
        with pytest.raises(UsageError) as raised:
            parse_content("static", f"@{file}")
        assert raised.value.message == f'static: cannot read "{file}": {reason}.'
    (tmp_path / "large").write_bytes(bytes(MAX_CONTENT_BYTES))
    assert parse_content("static", f"@{tmp_path}/large") == bytes(MAX_CONTENT_BYTES)


def test_a_rule_is_an_action_and_a_network() -> None:
    assert parse_rule("allow", "10.0.0.0/8") == "allow 10.0.0.0/8"
    assert parse_rule("deny", "all") == "deny all"
    with pytest.raises(UsageError, match=r'bad CIDR "10\.0\.0\.0/33"'):
        parse_rule("deny", "10.0.0.0/33")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (1 << 62, "4096 PiB")],
)
def test_bytes_are_shown_in_the_largest_unit(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("pairs", "rules"),
    [
        ([], []),
        ([("allow", "10.0.0.0/8")], ["allow 10.0.0.0/8", "deny all"]),
        ([("allow", "10.0.0.0/8"), ("allow", "::1")], ["allow 10.0.0.0/8", "allow ::1", "deny all"]),
        ([("deny", "10.0.0.1")], ["deny 10.0.0.1"]),
        ([("deny", "10.0.0.1"), ("allow", "10.0.0.0/8")], ["deny 10.0.0.1", "allow 10.0.0.0/8"]),
    ],
)
def test_rules_that_only_allow_keep_everybody_else_out(pairs: list[tuple[str, str]], rules: list[str]) -> None:
    assert parse_rules(pairs) == rules
