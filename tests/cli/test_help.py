"""What the command says of itself: usage, help and the options it takes."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import ESOCKD, LIMIT_S

from esockd_cli._app import COMMANDS, GROUPS, make_command
from esockd_core import OPTIONS

if TYPE_CHECKING:
    from tests.cli.conftest import RunEsockd


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        ([], "Usage: esockd COMMAND ...\nTry: esockd open echo 5000\nSee: esockd --help\n"),
        (
            ["open"],
            "Usage: esockd open HANDLER LISTEN... [OPTIONS]\nTry: esockd open echo 5000\nSee: esockd open --help\n",
        ),
    ],
)
def test_without_arguments_the_usage_is_three_lines(esockd: RunEsockd, arguments: list[str], usage: str) -> None:
    assert esockd(*arguments) == (2, "", usage)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_shows_addresses_as_they_are_written(esockd: RunEsockd, option: str) -> None:
    status, out, err = esockd("open", option)
    assert (status, err) == (0, "")
    assert "[::1]:5000" in out
    assert "static:@FILE" in out


@pytest.mark.parametrize("columns", ["200", "80", "40"])
def test_help_cuts_off_no_name_at_any_width(esockd: RunEsockd, columns: str) -> None:
    _, out, _ = esockd("open", "--help", COLUMNS=columns)
    flags = [flag for option in OPTIONS.values() for flag in option.flags.split()]
    assert [flag for flag in flags if not re.search(rf"(^| ){re.escape(flag)}( |,|$)", out, re.MULTILINE)] == []
    assert "…" not in out


def test_help_has_the_text_and_the_default_of_every_option_of_the_table(esockd: RunEsockd) -> None:
    out = " ".join(esockd("open", "--help")[1].split())
    for option in OPTIONS.values():
        if option.flag:
            assert f"{option.kind.placeholder} {option.text}" in out or f"{option.flag} {option.text}" in out
    assert f"{OPTIONS['send_timeout'].text} [default: 30s]" in out
    assert f"{OPTIONS['tls.minimum_version'].text} [default: 1.2]" in out


def test_help_has_every_option_under_a_title(esockd: RunEsockd) -> None:
    out = esockd("open", "--help")[1]
    titles = re.findall(r"^([A-Z].*):$", out, re.MULTILINE)
    assert titles[:3] == ["Arguments", "Program", "How many may come in"]
    assert titles[-3:] == ["Forwarding", "Output", "Other"]
    assert out.partition("Other:")[2].split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]


EVERY = [("", name) for name in COMMANDS] + [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_the_list_of_commands_says_of_each_what_its_own_help_does(group: str, name: str) -> None:
    text = (GROUPS[group] if group else COMMANDS)[name][1]
    assert make_command(name, group).help.partition("\n")[0] == text


@pytest.mark.parametrize(("group", "name"), [each for each in EVERY if each[1] not in GROUPS])
def test_every_command_starts_in_a_process_that_has_imported_nothing(group: str, name: str) -> None:
    """Other tests fork commands from a process that has imported everything, and would miss an import."""
    words = f"{group} {name}".split()
    done = subprocess.run([ESOCKD, *words, "--help"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(['esockd', *words])} ")


@pytest.mark.parametrize(("group", "name"), [each for each in EVERY if each[1] not in GROUPS])
def test_every_command_has_an_example_in_its_help(group: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"esockd {group} {name}".replace("  ", " ")
    with pytest.raises(SystemExit):
        make_command(name, group).main(["--help"], prog_name=path)
    assert f"Example: {path}" in capsys.readouterr().out


def test_a_group_without_a_command_says_which_there_are(esockd: RunEsockd) -> None:
    usage = "Usage: esockd connections list|kill ...\nSee: esockd connections --help\n"
    assert esockd("connections") == (2, "", usage)
