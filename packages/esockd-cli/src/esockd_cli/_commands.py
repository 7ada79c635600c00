"""How every command shows its help and what it says without arguments: plain text, by topic, never cut off."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand

from esockd_cli._errors import ExitCode
from esockd_cli._plain_texts import read_as_they_are

WIDEST_NAME: Final = 36  # columns; what is explained by a longer name begins on the next line


class Command(TyperCommand):
    """A command with options by topic.

    Attributes:
        example: Arguments that make sense, shown in the help, and where somebody gives none and some are needed.
        topics: The titles of topics in their order; those of every command come last.
    """

    example: ClassVar[str] = ""
    topics: ClassVar[tuple[str, ...]] = ()

    def get_params(self, ctx: Any) -> list[Any]:
        """Its arguments and options."""
        return read_as_they_are(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; without any, show how to use the command."""
        if not args and not ctx.resilient_parsing and any(param.required for param in self.get_params(ctx)):
            usage = " ".join(["Usage:", ctx.command_path, *self.collect_usage_pieces(ctx)])
            typer.echo(f"{usage}\nTry: {ctx.command_path} {self.example}\nSee: {ctx.command_path} --help", err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments, then the options."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        pieces = [_metavar(param) if param.required else f"[{_metavar(param)}]" for param in arguments]
        return [*pieces, "[OPTIONS]"]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does, and an example."""
        super().format_help_text(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"Example: {ctx.command_path} {self.example}".rstrip())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each topic under its title."""
        untitled = "Other" if self.topics else "Options"
        first = ("Arguments", *(self.topics or [untitled]))
        topics: dict[str, list[tuple[str, str]]] = {title: [] for title in first}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if param.param_type_name == "argument":
                topics["Arguments"].append((_metavar(param), str(getattr(param, "help", ""))))
            elif record is not None:
                topics.setdefault(getattr(param, "rich_help_panel", None) or untitled, []).append(record)
        for title, rows in topics.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=WIDEST_NAME)


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())
