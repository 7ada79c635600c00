"""The flags of a listener, from the library's table of options: each is declared, shown in the help, and read by it."""

from __future__ import annotations

import inspect
from dataclasses import MISSING
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from esockd_cli._bad_options import bad_option
from esockd_cli._errors import UsageError, did_you_mean
from esockd_core import OPTION_TABLE, OPTIONS, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from esockd_core import Option, Topic

Command = TypeVar("Command", bound="Callable[..., Any]")

Given = str | bool | list[str] | None
"""What the parser found for a flag: None, False or an empty list where it was not given."""

EXAMPLES: Final = {"tcp": "nodelay=off", "udp": "queue_datagrams=256"}
IS_SWITCH: Final = frozenset({"tcp.tune_buffer", "proxy_protocol"})  # flags without a value, of options that are off


def takes_flags(names: Container[str] = OPTIONS) -> Callable[[Command], Command]:
    """Give a command flags of the table, in place of its `**flags`; it gets them by the name of the parameter.

    Args:
        names: The options whose flags it takes.
    """

    def give(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        chosen = ((topic, each) for topic, options in OPTION_TABLE.items() for each in options if each.name in names)
        flags = [_parameter(topic, option) for topic, option in chosen if option.flag]
        vars(command)["__signature__"] = signature.replace(parameters=[*own, *flags])
        return command

    return give


def _parameter(topic: Topic, option: Option) -> inspect.Parameter:
    default = option.default
    text = f"{option.text} Give it again for more." if option.kind.is_list else option.text
    if default not in (None, (), False, MISSING):
        text += f"  [default: {option.kind.format(default)}]"
    is_switch = option.name in IS_SWITCH
    flag = typer.Option(
        *option.flags.split(),
        metavar=None if is_switch else option.kind.placeholder,
        help=text,
        show_default=False,
        rich_help_panel=topic.value,
    )
    kind: Any = bool if is_switch else list[str] | None if option.kind.is_list else str | None
    return inspect.Parameter(
        _name(option),
        inspect.Parameter.KEYWORD_ONLY,
        default=False if is_switch else None,
        annotation=Annotated[kind, flag],
    )


def _name(option: Option) -> str:
    return option.name.replace(".", "__")


def read_flags(flags: Mapping[str, Given]) -> dict[str, Any]:
    """The values of the flags that were given, by the names of their options.

    Raises:
        UsageError: One is not what its option takes.
    """
    given = {option: flags.get(_name(option)) for option in OPTIONS.values()}
    return {option.name: _read(option, value) for option, value in given.items() if value not in (None, False, [])}


def _read(option: Option, given: Given) -> Any:
    if isinstance(given, list):
        return tuple(_parse(option, each) for each in given)
    return _parse(option, given) if isinstance(given, str) else given


def _parse(option: Option, text: str) -> Any:
    try:
        return option.kind.parse(option.name, text)
    except InvalidOption as error:
        raise bad_option(error) from error


def read_group_options(group: str, texts: Iterable[str], values: dict[str, Any]) -> None:
    """Add what `--tcp-option KEY=VALUE` or `--udp-option KEY=VALUE` gives to the values of flags.

    Raises:
        UsageError: A key is unknown or given twice, or a value is not what it takes.
    """
    flag = f"--{group}-option"
    known = {option.field: option for option in OPTIONS.values() if option.group == group}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageError(f'{flag}: "{text}" has no "=".', hint=f"Write KEY=VALUE, such as {EXAMPLES[group]}.")
        if key not in known:
            hint = did_you_mean(key, known) or f"There are {', '.join(known)}."
            raise UsageError(f'{flag}: there is no "{key}".', code="unknown_option", hint=hint)
        option = known[key]
        if option.name in values:
            raise UsageError(f"{flag}: {key} is given twice.")
        values[option.name] = _parse(option, value)


def group_of(values: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The values of the options of a group, by the names they have in it."""
    return {OPTIONS[name].field: value for name, value in values.items() if OPTIONS[name].group == group}
