"""Every command and configuration that a page shows is one that the command `esockd` takes."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from esockd_cli._app import GROUPS, make_command
from esockd_cli.config.schema import find_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "packages/*/README.md", "examples/*.md") for page in ROOT.glob(pattern)
)
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IN_A_SENTENCE: Final = re.compile(r"`(esockd [a-z][^`]*)`")


def commands_in_blocks(text: str) -> Iterator[str]:
    """Every whole command line, without what the shell does with it."""
    for kind, block in BLOCK.findall(text):
        for line in block.replace("\\\n", "").splitlines():
            if kind == "sh" or (kind == "console" and line.startswith("$ ")):
                for part in re.split(r"[|>()]", line.removeprefix("$ ")):
                    command = re.sub(r"^\s*(\w+=\S+ )*", "", part)
                    if command.startswith("esockd "):
                        yield command


def parser_of(command: str) -> tuple[Any, list[str]]:
    """The parser of a command, and what it parses."""
    name, *rest = shlex.split(command, comments=True)[1:]
    return (make_command(rest[0], name), rest[1:]) if name in GROUPS and rest else (make_command(name), rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_of_a_page_can_be_parsed(page: Path) -> None:
    for command in commands_in_blocks(page.read_text()):
        parser, words = parser_of(command)
        parser.make_context(command, words)  # it raises what the command would say


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_flag_that_a_sentence_names_exists(page: Path) -> None:
    for command in IN_A_SENTENCE.findall(page.read_text()):
        parser, words = parser_of(command)
        flags = {flag for parameter in parser.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= flags, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_configuration_of_a_page_has_known_keys_and_good_values(page: Path) -> None:
    for kind, block in BLOCK.findall(page.read_text()):
        if kind == "toml":
            assert [*find_errors(tomllib.loads(block), page.parent)] == []
