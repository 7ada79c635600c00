"""What may be typed next, for the shells: `esockd __complete WORD... WORD` asks, and the last word is unfinished."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

import typer

from esockd_cli._app import PROGRAM, app

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORDS: Final = re.compile(r"[a-z0-9.]+(\|[a-z0-9.]+)+")  # a placeholder that names every word that an option takes


def print_completions(words: Sequence[str]) -> None:
    """Write what may be typed next, one a line, with a tab and an explanation behind it where there is one.

    Args:
        words: What was typed behind the name of the program, the last word being completed: it may be empty.
    """
    *before, unfinished = words or [""]
    found = {value: text for value, text in _complete(before, unfinished) if value.startswith(unfinished)}
    lines = [f"{value}\t{' '.join(text.split())}" if text else value for value, text in found.items()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _complete(before: Sequence[str], unfinished: str) -> Iterable[tuple[str, str]]:
    command: Any = typer.main.get_command(app)
    context = command.make_context(PROGRAM, [], resilient_parsing=True)
    rest = [*before]
    while hasattr(command, "list_commands"):
        if not rest:
            return [*_options(command, context, unfinished), *command.table_rows()]
        if rest[0].startswith("-"):
            rest.pop(0)
            continue
        command = command.get_command(context, name := rest.pop(0))
        if command is None:
            return []
        arguments = [] if hasattr(command, "list_commands") else [*rest]
        context = command.make_context(name, arguments, parent=context, resilient_parsing=True)
    return _of_command(command, context, rest, unfinished)


def _of_command(command: Any, context: Any, before: Sequence[str], unfinished: str) -> Iterable[tuple[str, str]]:
    params = command.get_params(context)
    if before and (option := _waiting(params, before[-1])) is not None:
        return _values(option, context, unfinished)
    if unfinished.startswith("-"):
        return _options(command, context, unfinished)
    arguments = [each for each in params if each.param_type_name == "argument"]
    free = [each for each in arguments if each.nargs == -1 or not context.params.get(each.name)]
    return _values(free[0], context, unfinished) if free else []


def _waiting(params: Iterable[Any], word: str) -> Any:
    """The option that the word before is, if it takes a value."""
    options = [each for each in params if each.param_type_name == "option" and not each.is_flag]
    return next((each for each in options if word in each.opts), None)


def _options(command: Any, context: Any, unfinished: str) -> list[tuple[str, str]]:
    if not unfinished.startswith("-"):
        return []
    options = [each for each in command.get_params(context) if each.param_type_name == "option"]
    return [(name, each.help or "") for each in options for name in each.opts if name.startswith("--")]


def _values(param: Any, context: Any, unfinished: str) -> list[tuple[str, str]]:
    found = [(str(each.value), each.help or "") for each in param.shell_complete(context, unfinished)]
    if found or not WORDS.fullmatch(param.metavar or ""):
        return found
    return [(word, "") for word in param.metavar.split("|")]
