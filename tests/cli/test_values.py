"""How the values of options are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esockd_cli._errors import UsageError
from esockd_cli._summary import format_bytes
from esockd_cli._values import (
    parse_content,
    parse_count,
    parse_duration,
    parse_mode,
    parse_rate,
    parse_refusal,
    parse_rule,
    parse_rules,
    parse_settings,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("2s", 2), ("500ms", 0.5), ("1.5m", 90), ("1 min", 60), ("2h", 7200), ("1d", 86_400), ("250us", 0.00025)],
        *[("0", 0), ("none", None), ("infinity", None), ("NONE", None)],
    ],
)
def test_a_duration_has_a_unit(text: str, seconds: float | None) -> None:
    assert parse_duration("--x", text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-1s", "s", "1w", "1e3s", "nan", "1s2", "٣s", "1" + "0" * 400 + "s"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="--x: bad duration"):
        parse_duration("--x", text)


def test_a_duration_without_a_unit_is_met_with_a_guess() -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration("--x", "30")
    assert caught.value.hint == 'Did you mean "30s"?'


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("1024", 1024), ("none", None), ("infinity", None)])
def test_a_count_is_a_whole_number_or_none(text: str, count: int | None) -> None:
    assert parse_count("-c", text) == count


@pytest.mark.parametrize("text", ["", "-1", "1.5", "ten", "٣", "1" * 16])
def test_anything_else_is_no_count(text: str) -> None:
    with pytest.raises(UsageError, match="-c: bad number"):
        parse_count("-c", text)


def test_rates_are_those_of_the_rate_limiter() -> None:
    assert parse_rate("-r", "100/s burst 500") == "100/s burst 500"
    assert parse_rate("-r", "none") is None
    with pytest.raises(UsageError, match=r"-r: .*is not a rate"):
        parse_rate("-r", "quick")


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0600", 0o600), ("0o777", 0o777), ("0", 0)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert parse_mode("--unix-mode", text) == mode


@pytest.mark.parametrize("text", ["", "888", "1777", "rw", "-1"])
def test_anything_else_is_no_mode(text: str) -> None:
    with pytest.raises(UsageError, match="bad mode"):
        parse_mode("--unix-mode", text)


def test_settings_are_numbers_switches_or_none() -> None:
    texts = ["keepalive=on", "keepalive-idle-s=60", "user_timeout_s=2.5", "nodelay = No", "linger_s=none"]
    assert parse_settings("-t", texts) == {
        "keepalive": True,
        "keepalive_idle_s": 60,
        "user_timeout_s": 2.5,
        "nodelay": False,
        "linger_s": None,
    }


@pytest.mark.parametrize("texts", [["nodelay"], ["=on"], ["nodelay=maybe"], ["a=1", "a=2"], ["a=1.2.3"]])
def test_anything_else_is_no_setting(texts: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^-t: "):
        parse_settings("-t", texts)


def test_content_is_the_text_itself_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\xff")
    assert parse_content("static", "a\\n:b") == b"a\\n:b"
    assert parse_content("static", f"@{tmp_path}/file") == b"\x00\xff"
    assert parse_content("static", "\udcff") == b"\xff"


def test_a_refusal_is_fin_rst_or_a_text() -> None:
    assert parse_refusal("--refuse-with", "fin") == "fin"
    assert parse_refusal("--refuse-with", "rst") == "rst"
    assert parse_refusal("--refuse-with", "static:fin") == b"fin"
    with pytest.raises(UsageError, match=r"none of fin, rst"):
        parse_refusal("--refuse-with", "reset")


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
