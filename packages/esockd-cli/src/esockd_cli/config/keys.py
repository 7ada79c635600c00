"""The keys of a configuration file, from the library's table of options, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from esockd_cli._account import check_group, check_user
from esockd_cli._listeners import Words
from esockd_cli._worker_count import read_worker_count
from esockd_cli.metrics.address import read_metrics_address
from esockd_core import OPTIONS, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from esockd_core import Option

PATHS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(option.key.split(".")) for name, option in OPTIONS.items() if option.key
}
"""Where each option that can be written stands in the table of a listener."""
NAMES: Final = {path: name for name, path in PATHS.items()}
WIDEST: Final = 200  # characters of a text that a message shows
STATIC_FILE: Final = "static:@"

Value: TypeAlias = Any
"""What a TOML parser makes of a value."""


def key_of(name: str) -> str:
    """What an option is called in a file; an option without a key is called by its name."""
    return ".".join(PATHS.get(name, (name,)))


KEYS: Final = Words(
    option=key_of,
    rule=lambda rule: f'access_rules: "{rule}"',
    allowing='access_rules = ["allow NETWORK", "deny all"]',
    certificate_hint='Write cert = "FILE", and key = "FILE" for its key.',
    dtls_hint='Write cert = "FILE", and key = "FILE" for its key, or psk_file = "FILE".',
)


@dataclass(frozen=True, slots=True)
class ProgramKey:
    """A key of the table `[esockd]`.

    Attributes:
        words: What it takes: these words; none for any text, and None for true or false.
        example: How its default, or else an example, is written.
        text: Its effect, in one line.
        check: Raises `BadValueError` for a text that it does not take; None if it takes any.
        takes_number: Whether it takes a whole number as well.
    """

    words: tuple[str, ...] | None
    example: str
    text: str
    check: Callable[[str], object] | None = None
    takes_number: bool = False


PROGRAM_KEYS: Final[dict[str, ProgramKey]] = {
    "instance": ProgramKey(
        (), '"edge"', "Name of this process for the other commands; that of the file when not given."
    ),
    "loop": ProgramKey(
        ("auto", "asyncio", "uvloop", "trio"), '"auto"', "Event loop; auto is uvloop where it is installed."
    ),
    "workers": ProgramKey(
        (),
        '"auto"',
        "How many worker processes serve; auto is one for each processor. None when not given: one process serves.",
        read_worker_count,
        takes_number=True,
    ),
    "app_dir": ProgramKey((), '"."', "Folder to import package.module from."),
    "no_control": ProgramKey(
        None, "false", "Open no control socket: no other command can inspect or change the listeners."
    ),
    "read_only": ProgramKey(
        (), '"660"', "Open a second control socket with these permissions, for looking only; none when not given."
    ),
    "metrics": ProgramKey(
        (),
        '"9100"',
        "Serve /metrics for Prometheus, /healthz and /readyz there; a port alone is for this machine only.",
        read_metrics_address,
    ),
    "user": ProgramKey(
        (),
        '"www-data"',
        "User that serves, once root has opened the ports; the one that starts it when not given.",
        check_user,
    ),
    "group": ProgramKey((), '"www-data"', "Group of that user; the user's own when not given.", check_group),
    "log_format": ProgramKey(
        ("auto", "json", "logfmt"),
        '"auto"',
        "What is written to stderr: text, or one JSON object or one line of key=value for each fact.",
    ),
    "log_level": ProgramKey(
        ("error", "warning", "info", "debug"),
        '"warning"',
        "From which level on lines are logged; info tells who is refused, and why.",
    ),
    "log_file": ProgramKey(
        (), '"/var/log/edge.log"', "File that has what goes to stderr, opened again at SIGUSR1; none when not given."
    ),
    "log_to": ProgramKey(
        ("stderr", "syslog", "journald"),
        '"stderr"',
        "Where logs go; journald gets what a line is about as fields.",
    ),
}
LISTENER_KEYS: Final = {
    "handler": "What serves the connections, as esockd open takes it.",
    "listen": "An address as esockd open takes it, or a list of them.",
    "key_password_file": "File whose first line is the password of an encrypted private key.",
    "key_password_env": "Variable of the environment that has this password; ESOCKD_KEY_PASSWORD when not given.",
}
UNLOCK_HINT: Final = "Name the file of the password with key_password_file, or its variable with key_password_env."
# Where what is written in the wrong place, or on a command line only, belongs.
BELONGS: Final = {
    "allow": 'Write access_rules = ["allow 10.0.0.0/8", "deny all"].',
    "deny": 'Write access_rules = ["deny 203.0.113.0/24"].',
    "name": "The name of a listener is that of its table, [listeners.NAME].",
    "tcp_option": "Write tcp_options.nodelay = false.",
    **dict.fromkeys(("password", "key_password"), UNLOCK_HINT),
    **dict.fromkeys(("handler", "listen"), "It belongs to a listener: [listeners.NAME]."),
    **dict.fromkeys(PROGRAM_KEYS, "It belongs to the table [esockd]."),
}


def read_value(option: Option, value: Value, folder: Path) -> Any:
    """Read the value of an option as it stands in a file: as on a command line, or as TOML writes such values.

    Args:
        option: The option.
        value: What the parser made of it.
        folder: Relative paths start from it.

    Raises:
        InvalidOption: It is not what the option takes; of a list, `BadItem` says which.
    """
    if option.kind.is_list:
        if not isinstance(value, list):
            single = _read_text(option, value, folder)
            return None if single is None else (single,)
        return tuple(_read_items(option, value, folder))
    return _read_text(option, value, folder)


class BadItem(Exception):  # noqa: N818 (an answer)
    """An item of a list that is not allowed.

    Attributes:
        index: Its place.
        error: What is wrong with it.
    """

    def __init__(self, index: int, error: InvalidOption) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


def _read_items(option: Option, items: Iterable[Value], folder: Path) -> Iterable[Any]:
    for index, item in enumerate(items):
        try:
            yield _read_text(option, item, folder)
        except InvalidOption as error:
            raise BadItem(index, error) from error


def _read_text(option: Option, value: Value, folder: Path) -> Any:
    kind = option.kind
    if isinstance(value, bool):
        if kind.holds(value):
            return value
    elif kind.placeholder == "on|off" and value not in ("on", "off"):
        raise InvalidOption("it takes true or false", option=option.name, value=value)
    elif isinstance(value, str):
        return kind.parse(option.name, _absolute(option, value, folder))
    elif isinstance(value, int | float) and kind.placeholder == "MODE":
        # What was written in octal and what was not are the same number here.
        raise InvalidOption("it takes permission bits as a text", option=option.name, value=value, hint='Write "660".')
    elif isinstance(value, int | float):
        return kind.parse(option.name, str(value))
    raise InvalidOption(f"it takes {kind.takes_text}", option=option.name, value=value)


def _absolute(option: Option, text: str, folder: Path) -> str:
    if option.kind.placeholder == "FILE" and text.strip().lower() != "none":
        return str(folder / text)
    return absolute_static(text, folder) if option.name == "refuse_with" else text


def absolute_static(text: str, folder: Path) -> str:
    """The text of a handler or a farewell, with the file of `static:@FILE` found from a folder."""
    return f"{STATIC_FILE}{folder / text.removeprefix(STATIC_FILE)}" if text.startswith(STATIC_FILE) else text


def write_toml(value: object) -> str:
    """A value as TOML writes it, not longer than a line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            return text if len(text) <= WIDEST else f'{text[: WIDEST - 4]}..."'
        case list() | tuple():
            return f"[{', '.join(map(write_toml, value))}]"
        case Mapping():
            return "a table"
    return str(value)
