"""Options that every command has, and the command line's one ordered list of access rules."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperCommand

OUTPUT_PANEL: Final = "Output"
ACCESS_RULES: Final = "esockd_cli.access_rules"

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON lines.", rich_help_panel=OUTPUT_PANEL)]
NoColor: TypeAlias = Annotated[
    bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.", rich_help_panel=OUTPUT_PANEL)
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only data and errors.", rich_help_panel=OUTPUT_PANEL)
]
Verbose: TypeAlias = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tracebacks and debug logs too.", rich_help_panel=OUTPUT_PANEL)
]


class OrderedRulesCommand(TyperCommand):
    """A command that knows in which order `--allow` and `--deny` were typed.

    Values of one option come in order, but two options know nothing of each other. The parser does: besides the values
    it returns the parameters in the order they were met, each as often as it was.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and keep pairs of action and network in the context's `meta`."""
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        networks = {action: iter(values.get(action) or ()) for action in ("allow", "deny")}
        ctx.meta[ACCESS_RULES] = [(param.name, next(networks[param.name])) for param in order if param.name in networks]
        return super().parse_args(ctx, args)
