"""The help of every command as Markdown, for the site.

Usage: python -m tools.command_help
"""

from __future__ import annotations

from typer.testing import CliRunner

from esockd_cli._app import COMMANDS, GROUPS, PROGRAM, app

COLUMNS = "100"


def command_help() -> str:
    """A section for each command, with what `--help` prints at a terminal of 100 columns."""
    runner = CliRunner(env={"COLUMNS": COLUMNS, "TERM": "dumb"})
    sections = []
    for command in COMMANDS:
        for words in ([command], *([command, each] for each in GROUPS.get(command, ()))):
            result = runner.invoke(app, [*words, "--help"], prog_name=PROGRAM, catch_exceptions=False)
            sections.append(f"\n## {PROGRAM} {' '.join(words)}\n\n```text\n{result.stdout.rstrip()}\n```\n")
    return "".join(sections)


if __name__ == "__main__":
    print(command_help())
