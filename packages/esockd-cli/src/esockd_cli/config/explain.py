"""What pydantic finds wrong, in the words of a configuration file, with what was probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from esockd_cli._errors import did_you_mean
from esockd_cli.config.keys import BELONGS, LISTENER_KEYS, NAMES, PROGRAM_KEYS, write_toml

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST_LISTENER: Final = 'Write [listeners.echo] with handler = "echo" and listen = 5000.'
MISSING: Final = {"handler": 'Write handler = "echo".', "listen": "Write listen = 5000."}


class KeyProblem(NamedTuple):
    """What is wrong with a key.

    Attributes:
        path: The path of the key.
        message: What is wrong with it.
        hint: What to do about it.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str | None


def explain(error: Any) -> KeyProblem:  # noqa: PLR0911 (one for each kind)
    """Say in words what pydantic has found."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    kind, context = error["type"], error.get("ctx", {})
    key = path[-1]
    match kind:
        case "bad_value" if "[key]" in error["loc"]:
            return KeyProblem(path, f"listeners.{write_toml(key)}: {context['reason']}.", context["hint"])
        case "extra_forbidden":
            return KeyProblem(path, f'unknown key "{key}".', _guess(path))
        case "bad_value":
            subject = ".".join(map(str, path[2:] if path[0] == "listeners" else path[1:]))
            if context["index"] is not None:
                path, subject = (*path, context["index"]), f"{subject}[{context['index']}]"
            return KeyProblem(
                path, f"{subject} = {write_toml(context['value'])}: {context['reason']}.", context["hint"]
            )
        case "missing" if path == ("listeners",):
            return KeyProblem(path, "there is no listener.", FIRST_LISTENER)
        case "missing":
            return KeyProblem(path, f"{'.'.join(map(str, path[:-1]))} has no {key}.", MISSING[str(key)])
        case "too_short":
            return KeyProblem(path, "there is no listener.", FIRST_LISTENER)
    return KeyProblem(path, f"{'.'.join(map(str, path))} takes a table, not {write_toml(error['input'])}.", None)


def _guess(path: tuple[str | int, ...]) -> str | None:
    *before, key = map(str, path)
    if not before:
        return did_you_mean(key, ("esockd", "listeners")) or "A file has the tables [esockd] and [listeners.NAME]."
    if before == ["esockd"]:
        known: Iterable[str] = PROGRAM_KEYS
        is_of_listener = key in LISTENER_KEYS or (key,) in NAMES
        fallback = "It belongs to a listener: [listeners.NAME]." if is_of_listener else None
        return fallback or did_you_mean(key, known)
    inside = tuple(before[2:])
    known = [each[-1] for each in NAMES if each[:-1] == inside]
    if not inside:
        known = [*known, *LISTENER_KEYS, *{each[0] for each in NAMES if len(each) > 1}]
    if key in BELONGS and key not in known:
        return BELONGS[key]
    elsewhere = sorted(".".join(each) for each in NAMES if each[-1] == key or ".".join(each) == key)
    if near := did_you_mean(key, known):
        return near
    return f'Did you mean "{elsewhere[0]}"?' if elsewhere else None
