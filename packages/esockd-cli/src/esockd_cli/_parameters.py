"""Options that every command has, and the command line's one ordered list of access rules."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from esockd_cli._commands import Command
from esockd_cli._completion import complete_instance, complete_listener
from esockd_cli._output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

LISTENER_HELP: Final = "LISTENER is NAME or NAME@ADDRESS, and not needed where only one is open."
OUTPUT_PANEL: Final = "Output"
ACCESS_RULES: Final = "esockd_cli.access_rules"

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON lines.", rich_help_panel=OUTPUT_PANEL)]
NoColor: TypeAlias = Annotated[
    bool,
    typer.Option("--no-color", help="Write without colours; NO_COLOR does the same.", rich_help_panel=OUTPUT_PANEL),
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Write data and errors only.", rich_help_panel=OUTPUT_PANEL)
]
Verbose: TypeAlias = Annotated[
    bool, typer.Option("--verbose", "-v", help="Write tracebacks and debug logs too.", rich_help_panel=OUTPUT_PANEL)
]
Instance: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--instance",
        "-i",
        metavar="NAME",
        help="The process, by its name or the path of its control socket; needed where several have the listener.",
        autocompletion=complete_instance,
    ),
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do it without being asked.")]
Listener: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="LISTENER",
        help="NAME or NAME@ADDRESS; not needed where only one is open.",
        autocompletion=complete_listener,
    ),
]


def speaks(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say how it speaks, in place of its first parameter, an `Output`."""
    signature = inspect.signature(command, eval_str=True)
    own = [*signature.parameters.values()][1:]
    kinds = {"as_json": AsJson, "no_color": NoColor, "quiet": Quiet, "verbose": Verbose}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in kinds.items()
    ]

    @wraps(command)
    def speaking(**values: Any) -> int:
        output = Output(**{name: values.pop(name) for name in kinds})
        return command(output, **values)

    vars(speaking)["__signature__"] = signature.replace(parameters=[*own, *added])
    return speaking


class OrderedRulesCommand(Command):
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
