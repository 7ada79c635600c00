"""A configuration file with every key, commented: the text of `esockd config example`."""

from __future__ import annotations

from dataclasses import MISSING
from itertools import groupby
from typing import TYPE_CHECKING, Final

from esockd_cli.config.keys import LISTENER_KEYS, PATHS, PROGRAM_KEYS, write_toml
from esockd_core import OPTION_TABLE, Effect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core import Option

HEAD: Final = """\
# Every key of a configuration of esockd, with its default. Only handler and listen have to be given.
#
# Check a file:  esockd check edge.toml
# Run it:        esockd run edge.toml
# Change it:     esockd reload, or SIGHUP, or esockd run edge.toml --watch
#
# Times need a unit: "500ms", "2s", "1.5m". "none" sets no limit. Relative paths start from the folder of this file.
# [live], [new connections] and [new sockets] say what a reload does about open connections: it changes them too, leaves
# them as they are, or opens new listening sockets, where they stay as well.
"""
NETWORK: Final = "127.0.0.1:5000"
EFFECTS: Final = {
    Effect.LIVE: "live",
    Effect.NEW_CONNECTIONS: "new connections",
    Effect.REOPEN: "new sockets",
}


def example() -> str:
    """The whole text."""
    return "\n".join([HEAD, *_program(), "[listeners.echo]", *_listener(), *_groups()]).rstrip() + "\n"


def _program() -> Iterator[str]:
    yield "[esockd]"
    for name, key in PROGRAM_KEYS.items():
        yield f"# {key.text}"
        yield f"# {name} = {key.example}"
    yield ""


def _listener() -> Iterator[str]:
    yield f"# {LISTENER_KEYS['handler']}"
    yield 'handler = "echo"'
    yield f"# {LISTENER_KEYS['listen']}"
    yield f'listen = "{NETWORK}"'
    for topic, options in OPTION_TABLE.items():
        own = [option for option in options if len(PATHS.get(option.name, ())) == 1]
        if own:
            yield ""
            yield f"# == {topic.value} =="
        for option in own:
            yield from _key(option)
            if option.name == "tls.keyfile":
                for name in ("key_password_file", "key_password_env"):
                    yield f"# {LISTENER_KEYS[name]} [new connections]"
                    yield f'# {name} = "{"FILE" if name.endswith("file") else "EDGE_KEY_PASSWORD"}"'
    yield ""


def _groups() -> Iterator[str]:
    nested = [option for options in OPTION_TABLE.values() for option in options if len(PATHS.get(option.name, ())) > 1]
    for group, options in groupby(nested, lambda option: PATHS[option.name][0]):
        yield f"[listeners.echo.{group}]"
        for option in options:
            yield from _key(option)
        yield ""


def _key(option: Option) -> Iterator[str]:
    effect = "new connections" if option.name.startswith("forward.") else EFFECTS[option.effect]
    yield f"# {option.text} [{effect}]"
    yield f"# {PATHS[option.name][-1]} = {_default(option)}"


def _default(option: Option) -> str:
    if option.default is MISSING:
        return '"FILE"'
    if option.kind.is_list and option.default is not None:
        return write_toml(list(option.default))
    if isinstance(option.default, bool) or (isinstance(option.default, int) and not option.kind.unit):
        return write_toml(option.default)
    return write_toml(option.kind.format(option.default))
