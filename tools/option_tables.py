"""Write the tables of options into the pages, from the one table in esockd_core.

Usage: make option-tables

A table stands between `<!-- options: WHICH -->` and `<!-- end of options -->`; WHICH is "core" for the listener's own
options, "command" for what `esockd open` takes, or the name of a topic for all options that belong to it.
"""

from __future__ import annotations

import re
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING

from esockd_cli._app import make_command
from esockd_core import OPTION_TABLE, OPTIONS, Effect, Option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGES = ("packages/esockd-core/README.md", "packages/esockd-cli/README.md", "docs/options.md")
BLOCK = re.compile(r"(<!-- options: (?P<which>[\w-]+) -->\n).*?(<!-- end of options -->\n)", re.DOTALL)
IN_FORCE = {Effect.LIVE: "live", Effect.NEW_CONNECTIONS: "new connections", Effect.REOPEN: "reopen"}


def main() -> None:
    """Entry point."""
    for page in map(Path, PAGES):
        page.write_text(written(page.read_text()))


def written(text: str) -> str:
    """A page with its tables as they have to be."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{table(block['which'])}\n\n{block[3]}", text)


def table(which: str) -> str:
    """The table of one block."""
    if which == "core":
        rows = list(overview())
        head = ["option", "default", ""]
    elif which == "command":
        rows = list(flags())
        head = ["option", "default", ""]
    else:
        topic = next(topic for topic in OPTION_TABLE if topic.name.lower() == which)
        rows = [details(option) for option in OPTION_TABLE[topic]]
        head = ["option", "flag", "takes", "default", "in force", ""]
    return "\n".join(line(cells) for cells in [head, ["---" for _ in head], *rows])


def line(cells: Iterable[str]) -> str:
    """One row in Markdown."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |".replace("|  |", "| |")


def overview() -> Iterator[list[str]]:
    """The listener's own options, in short, and the groups of nested ones."""
    for option in OPTIONS.values():
        if not option.group:
            yield [f"`{option.name}`", default(option), option.text]
    for group in ("tls", "dtls", "tcp", "unix", "udp"):
        fields = ", ".join(f"`{option.field}`" for option in OPTIONS.values() if option.group == group)
        first = "`None`" if group.endswith("tls") else f"`{group.capitalize()}Options()`"
        yield [f"`{group}`", first, f"Nested options: {fields}."]


def flags() -> Iterator[list[str]]:
    """What `esockd open` takes, in the order of its help."""
    command = make_command("open")
    by_title: dict[str, list[list[str]]] = {title: [] for title in command.topics}
    for param in command.params:
        if param.param_type_name == "option":
            text, _, given = param.help.partition("  [default: ")
            told = given.removesuffix("]") or (param.default if isinstance(param.default, str) else "")
            long, *short = param.opts
            names = ", ".join([f"`{' '.join(filter(None, (long, param.metavar)))}`", *(f"`{name}`" for name in short)])
            by_title.setdefault(param.rich_help_panel, []).append([names, f"`{told}`" if told else "", text])
    for rows in by_title.values():
        yield from rows


def details(option: Option) -> list[str]:
    """Everything about an option."""
    takes = f"{option.kind.takes}{', or None' if option.kind.is_optional else ''}"
    flags = ", ".join(f"`{flag}`" for flag in option.flags.split())
    effect = "" if option.name.startswith("forward.") else IN_FORCE[option.effect]
    return [f"`{option.name}`", flags, takes, default(option), effect, option.text]


def default(option: Option) -> str:
    """The default as Python writes it."""
    value = option.default
    return "" if value is MISSING else f"`{value:g}`" if isinstance(value, float) else f"`{value!r}`"


if __name__ == "__main__":
    main()
