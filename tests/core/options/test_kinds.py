"""The kinds of values that options take, as values and as texts."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_core import OPTIONS, InvalidOption
from esockd_core._options.kinds import Choice, Duration, Kind, Size, Switch, Whole, WholeSeconds
from esockd_core._options.special_kinds import Account, Farewell, Mode

if TYPE_CHECKING:
    from pathlib import Path

ANY = Duration(least=0, is_optional=True)


def refusal(kind: Kind, text: str) -> InvalidOption:
    with pytest.raises(InvalidOption) as refused:
        kind.parse("x", text)
    assert (refused.value.option, refused.value.value) == ("x", text)
    return refused.value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("2s", 2), ("500ms", 0.5), ("1.5m", 90), ("1 min", 60), ("2h", 7200), ("1d", 86_400), ("250us", 0.00025)],
        *[("0", 0), ("none", None), ("infinity", None), ("NONE", None), (" 2s ", 2), ("0.1s", 0.1)],
    ],
)
def test_a_duration_has_a_unit(text: str, seconds: float | None) -> None:
    assert ANY.parse("x", text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-1s", "s", "1w", "1e3s", "nan", "1s2", "٣s", "1" + "0" * 400 + "s"])
def test_anything_else_is_not_a_duration(text: str) -> None:
    assert refusal(ANY, text).reason == "it takes a duration such as 30s, 0 or more, or none"


def test_a_duration_without_a_unit_is_met_with_a_guess() -> None:
    assert refusal(ANY, "30").hint == 'Did you mean "30s"?'
    assert refusal(ANY, "30x").hint is None


def test_a_bound_is_told_in_seconds_to_programs_and_in_durations_to_command_lines() -> None:
    kind = WholeSeconds(most=3600)
    with pytest.raises(InvalidOption, match="it takes whole seconds, 1 to 3600, or None"):
        kind.check("x", 3601)
    assert refusal(kind, "2h").reason == "it takes a duration in whole seconds such as 30s, 1s to 1h, or none"
    assert refusal(kind, "1.5s").reason == refusal(kind, "2h").reason
    assert refusal(Duration(), "0").reason == "it takes a duration such as 30s, more than 0"


@given(st.integers(0, 10**9) | st.integers(0, 10**9).map(lambda micros: micros / 1_000_000))
def test_a_duration_comes_back_from_its_text(seconds: float) -> None:
    assert ANY.parse("x", ANY.format(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(30, "30s"), (60.0, "1m"), (90, "90s"), (0.25, "250ms"), (86_400, "1d"), (0, "0"), (None, "none")],
)
def test_a_duration_is_shown_in_the_largest_unit_that_needs_no_fraction(seconds: float | None, text: str) -> None:
    assert ANY.format(seconds) == text


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1024", 1024), ("none", None), ("infinity", None)])
def test_a_whole_number_is_written_in_digits(text: str, number: int | None) -> None:
    assert Whole(least=0, is_optional=True).parse("x", text) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "ten", "٣", "1" * 16, "80x"])
def test_anything_else_is_not_a_whole_number(text: str) -> None:
    assert refusal(Whole(least=0), text).reason == "it takes a whole number, 0 or more"


def test_none_is_refused_where_there_has_to_be_a_bound() -> None:
    assert refusal(Whole(most=64), "none").reason == "it takes a whole number, 1 to 64"


@given(st.integers(1, 2**40))
def test_a_size_comes_back_from_its_text(size: int) -> None:
    assert Size().parse("x", Size().format(size)) == size


def test_a_size_has_binary_units() -> None:
    assert [Size().parse("x", text) for text in ("65536", "64KiB", "1 mib")] == [65_536, 65_536, 1 << 20]
    assert Size().format(1_048_576) == "1MiB"
    for text in ("64K", "64KB", "1.5MiB", ""):
        assert refusal(Size(most=1 << 30), text).reason == "it takes a size such as 64KiB, 1 to 1GiB"


@pytest.mark.parametrize(
    ("text", "value"), [("on", True), ("Yes", True), ("true", True), ("off", False), ("no", False)]
)
def test_a_switch_is_on_or_off(text: str, value: bool) -> None:
    assert Switch().parse("x", text) is value


def test_a_choice_guesses_what_was_meant() -> None:
    kind = Choice(("close", "backlog"))
    assert kind.parse("x", "close") == "close"
    wrong = refusal(kind, "Backlo")
    assert (wrong.reason, wrong.hint) == ("it takes close or backlog", 'Did you mean "backlog"?')


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0600", 0o600), ("0o777", 0o777), ("0", 0)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert Mode().parse("x", text) == mode


@pytest.mark.parametrize("text", ["", "888", "1777", "rw", "-1"])
def test_anything_else_is_not_a_mode(text: str) -> None:
    assert refusal(Mode(), text).reason == "it takes permission bits in octal such as 660, 0 to 777"


def test_an_account_is_a_name_or_a_number() -> None:
    assert (Account().parse("x", "nobody"), Account().parse("x", "65534")) == ("nobody", 65_534)
    assert refusal(Account(), "4294967295").reason.startswith("it takes a name, or a number")


def test_a_refused_client_hears_a_text_or_what_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "busy").write_bytes(b"\x00\xff")
    kind = Farewell()
    assert [kind.parse("x", text) for text in ("fin", "rst", "static:fin")] == ["fin", "rst", b"fin"]
    assert kind.parse("x", f"static:@{tmp_path}/busy") == b"\x00\xff"
    assert refusal(kind, "static:@nowhere").reason == "cannot read the file: No such file or directory"
    for text in ("reset", "text:bye"):
        assert refusal(kind, text).reason == "it takes fin, rst, static:TEXT or static:@FILE"


def test_the_file_of_a_farewell_is_neither_waited_for_nor_without_bound(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    for file, reason in {
        str(tmp_path / "pipe"): "it is a pipe or a device, not a file",
        "/dev/zero": "it is a pipe or a device, not a file",
        str(tmp_path / "large"): "it holds more than 1 MiB",
    }.items():
        assert refusal(Farewell(), f"static:@{file}").reason == f"cannot read the file: {reason}"


@pytest.mark.parametrize(
    ("name", "text", "value", "reason"),
    [
        ("access_rules", "deny 10.0.0.1/33", "deny 10.0.0.1/33", "an IPv4 prefix length is 0 to 32"),
        ("proxy_protocol.trusted", "10.0.0.1/33", "10.0.0.1/33", "an IPv4 prefix length is 0 to 32"),
        ("tls.alpn", "h" * 256, "h" * 256, "it takes a name of 1 to 255 ASCII characters (RFC 7301 section 3.1)"),
    ],
)
def test_one_of_several_values_is_told_by_itself(name: str, text: str, value: object, reason: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        OPTIONS[name].kind.parse(name, text)
    assert (refused.value.option, refused.value.value, refused.value.reason) == (name, value, reason)


def test_a_rate_is_what_the_rate_limiter_reads() -> None:
    kind = OPTIONS["max_conn_rate"].kind
    assert kind.parse("x", "100/s burst 500") == "100/s burst 500"
    assert kind.parse("x", "none") is None
    assert refusal(kind, "quick").reason == "that is not a rate"
    assert "100/s" in str(refusal(kind, "quick").hint)


def test_a_policy_may_be_a_switch() -> None:
    kind = OPTIONS["proxy_protocol"].kind
    assert [kind.parse("x", text) for text in ("on", "off", "use")] == [True, False, "use"]
    assert [kind.format(value) for value in (True, False, "use")] == ["on", "off", "use"]


@given(st.sampled_from([option for option in OPTIONS.values() if option.kind.is_text]), st.text())
def test_any_text_is_a_value_or_an_invalid_option(option: Any, text: str) -> None:
    try:
        value = option.kind.parse(option.name, text)
    except InvalidOption:
        return
    if value is not None and not option.kind.is_list:
        assert option.kind.parse(option.name, option.kind.format(value)) == value
    assert dataclasses.is_dataclass(option.kind)
