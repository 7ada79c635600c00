"""`KEY` and `KEY=VALUE`: options of a running listener, found and read by the library's table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esockd_cli._errors import UsageError, bad_value, did_you_mean
from esockd_core import OPTIONS, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from esockd_core import Option

OPTIONS_OF_LISTENERS = {name: option for name, option in OPTIONS.items() if option.group.partition(".")[0] != "forward"}


def is_key(word: str) -> bool:
    """Whether a word names an option or a group of them, rather than a listener."""
    name = _normal(word)
    return _find(name) is not None or any(option.group == name for option in OPTIONS_OF_LISTENERS.values())


def find_options(word: str) -> list[str]:
    """The names of the option, or of all options of the group, that a word names.

    Raises:
        UsageError: It names none.
    """
    name = _normal(word)
    if found := [each for each, option in OPTIONS_OF_LISTENERS.items() if option.group == name]:
        return [name, *found] if name in OPTIONS_OF_LISTENERS else found
    return [find_option(word).name]


def find_option(word: str) -> Option:
    """The option that a word names: as in Python, in a configuration file, or by its last part where that is enough.

    Raises:
        UsageError: It names none.
    """
    if option := _find(_normal(word)):
        return option
    fields = {option.field for option in OPTIONS_OF_LISTENERS.values()}
    hint = did_you_mean(_normal(word), [*OPTIONS_OF_LISTENERS, *fields]) or "See: esockd get"
    raise UsageError(f'there is no option "{word}".', code="unknown_option", hint=hint)


def _find(name: str) -> Option | None:
    if name in OPTIONS_OF_LISTENERS:
        return OPTIONS_OF_LISTENERS[name]
    known = OPTIONS_OF_LISTENERS.values()
    found = [option for option in known if option.key == name] or [option for option in known if option.field == name]
    if len(found) > 1:  # what streams and datagrams both have is that of streams, which had it before
        found = [option for option in found if option.group not in ("udp", "dtls")]
    return found[0] if len(found) == 1 else None


def _normal(word: str) -> str:
    return word.strip().removeprefix("--").replace("-", "_")


def split_listener(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Tell the listener, which may be left out, from options."""
    if words and "=" not in words[0].partition("@")[0] and not is_key(words[0]):
        return words[0], [*words[1:]]
    return None, [*words]


def read_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` texts as the library takes changes.

    Raises:
        UsageError: A key is not known, a value is not what it takes, or they do not go together.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f'"{text}" has no "=".', hint="Write KEY=VALUE, such as max_connections=5000.")
        option = find_option(key)
        place: object = changes.setdefault(option.group, {}) if option.group else changes
        if not isinstance(place, dict) or option.field in place:
            raise UsageError(f"{key}={value}: this was set already by what stands before it.")
        try:
            place[option.field] = _read(option, value)
        except InvalidOption as error:
            raise bad_value(error, f"{key}={value}") from error
    return changes


def _read(option: Option, text: str) -> Any:
    kind = option.kind
    if not kind.is_text:
        raise InvalidOption("only a program can give it", option=option.name, value=text)
    if not kind.is_list:
        value = kind.parse(option.name, text)
        # The instance looks from its own folder.
        return str(Path(value).absolute()) if kind.placeholder == "FILE" and value is not None else value
    if kind.is_optional and text.strip().lower() == "none":
        return None
    return tuple(kind.parse(option.name, part.strip()) for part in text.split(",") if part.strip())


def write_value(name: str, value: object) -> str:
    """A value as `read_settings` reads it."""
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps({str(key): str(each) for key, each in value.items()}, ensure_ascii=False)
    option = OPTIONS.get(name)
    return str(value) if option is None else option.kind.format(value)
