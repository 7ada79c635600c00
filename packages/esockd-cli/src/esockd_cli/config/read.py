"""Reading a configuration file: what it says, and everything that is wrong with it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar

from esockd_cidr import Action
from esockd_cli._errors import CommandError, UsageError
from esockd_cli._handlers import find_handler, is_of_module
from esockd_cli._listeners import (
    build_options,
    find_amplification,
    find_doubts,
    find_misuse,
    forwarding_options,
    make_forwarder,
)
from esockd_cli._opening import Opening
from esockd_cli._passwords import read_password
from esockd_cli.config.collisions import find_collisions
from esockd_cli.config.keys import KEYS, NAMES, PATHS, STATIC_FILE, UNLOCK_HINT, key_of, write_toml
from esockd_cli.config.of_workers import find_datagrams
from esockd_cli.config.problems import BadConfig, Problem
from esockd_cli.config.schema import find_errors, read_tables
from esockd_cli.config.source import MAX_BYTES, Source, parse
from esockd_core import OPTIONS, InvalidOption, read_regular_file
from esockd_core.handlers import ForwardHandler, discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from esockd_core import Address, Handler, ListenerOptions

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("esockd_cli")

PASSWORD_KEYS: Final = ("key_password_file", "key_password_env")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A file that can be used.

    Attributes:
        source: The file.
        program: The table `[esockd]`, its keys that were given.
        openings: The listeners, one for each address.
        doubts: What is allowed, and mostly a mistake.
        files: The files that it names.
        app_dir: The folder that modules are imported from.
        lacks_modules: Whether handlers of modules are stood in for, until `with_modules`.
    """

    source: Source
    program: Mapping[str, Any]
    openings: tuple[Opening, ...]
    doubts: tuple[str, ...]
    files: tuple[str, ...]
    app_dir: Path
    lacks_modules: bool = False

    def with_modules(self) -> Configuration:
        """The same with every handler imported.

        Raises:
            BadConfig: One cannot be.
        """
        if not self.lacks_modules:
            return self
        found: dict[str, Handler] = {}
        problems: list[Problem] = []
        for name, text in {each.name: each.handler_text for each in self.openings}.items():
            try:
                if is_of_module(text):
                    found[name] = find_handler(text, self.app_dir, "app_dir")[1]
            except CommandError as error:
                path = ("listeners", name, "handler")
                problems.append(self.source.problem(path, error.message, error.hint, error.code))
        if problems:
            raise BadConfig(problems)
        openings = tuple(replace(each, handler=found.get(each.name, each.handler)) for each in self.openings)
        return replace(self, openings=openings, lacks_modules=False)

    def warn(self) -> None:
        """Log what is mostly a mistake."""
        for doubt in self.doubts:
            logger.warning("%s: %s", self.source.file, doubt)


def read_config(
    file: str,
    *,
    known: Mapping[object, Handler] | None = None,
    has_workers: bool = False,
    leaves_modules: Callable[[Mapping[str, Any]], bool] = lambda _: False,
) -> Configuration:
    """Read a file, and make its handlers and options; nothing is opened.

    Args:
        file: The file.
        known: Handlers that were made before, by their marks, which are used again.
        has_workers: Whether workers serve, although the file may not say so.
        leaves_modules: Says by the table `[esockd]`, as it was given, whether handlers of modules are to be imported
            later.

    Raises:
        BadConfig: It cannot be used.
    """
    return _Reader(parse(file), known or {}, leaves_modules, has_workers=has_workers).read()


class _Reader:
    """Makes listeners of the tables of one file, and collects what is wrong."""

    def __init__(
        self,
        source: Source,
        known: Mapping[object, Handler],
        leaves_modules: Callable[[Mapping[str, Any]], bool],
        *,
        has_workers: bool,
    ) -> None:
        self._source = source
        self._known = known
        self._may_leave_modules = leaves_modules
        self._leaves_modules = False
        self._has_workers = has_workers
        self._problems: list[Problem] = []
        self._doubts: list[str] = []
        self._openings: list[Opening] = []
        self._files: list[str] = []

    def read(self) -> Configuration:
        source = self._source
        for path, message, hint in find_errors(source.data, source.folder):
            self._problems.append(source.problem(path, message, hint))
        program, listeners = read_tables(source.data, source.folder)
        app_dir = source.folder / program.get("app_dir", ".")
        given = source.data.get("esockd")
        self._leaves_modules = self._may_leave_modules(given if isinstance(given, dict) else {})  # also wrong values
        for name, table in listeners.items():
            self._read_listener(name, table, app_dir)
        self._problems.extend(find_collisions(source, self._openings))
        if self._has_workers or "workers" in program:
            self._problems.extend(find_datagrams(source, self._openings))
        if self._problems:
            raise BadConfig(self._problems)
        openings, doubts, files = tuple(self._openings), tuple(self._doubts), tuple(self._files)
        return Configuration(source, program, openings, doubts, files, app_dir, self._leaves_modules)

    def _read_listener(self, name: str, table: Mapping[tuple[str, ...], Any], app_dir: Path) -> None:
        addresses: tuple[Address, ...] = table["listen",]
        text: str = table["handler",]
        values = {NAMES[path]: value for path, value in table.items() if path in NAMES}
        rules = values.pop("access_rules", ())
        if isinstance(policy := values.get("proxy_protocol"), str):
            values["proxy_protocol"] = True
            values.setdefault("proxy_protocol.policy", policy)
        self._files += [
            value for option, value in values.items() if OPTIONS[option].kind.placeholder == "FILE" and value
        ]
        self._files += [text.removeprefix(STATIC_FILE)] if text.startswith(STATIC_FILE) else []
        self._files += [table[key] for key in [("key_password_file",)] if key in table]
        before = len(self._problems)
        for address in _twice(addresses):
            self._complain(name, "listen", f"{address} is given twice.", code="bad_address")
        password_from = next((key for key in PASSWORD_KEYS if (key,) in table), None)
        for misuse in find_misuse(addresses, values, KEYS, password_from=password_from):
            self._complain(name, misuse.name, misuse.message, misuse.hint)
        for option in forwarding_options(text, values):
            message = f'{key_of(option)} is for the handler forward:HOST:PORT, and not for "{text}".'
            self._complain(name, option, message)
        forward = {option: value for option, value in values.items() if option.startswith("forward.")}
        static = [hash_of(text.removeprefix(STATIC_FILE))] if text.startswith(STATIC_FILE) else []
        handler_mark = (text, *static, *forward.items(), *_contents(values, "forward."))
        handler = self._attempt(name, lambda: self._make_handler(text, values, app_dir, handler_mark), "handler")
        password = self._attempt(name, lambda: self._read_password(table), password_from or "key")
        if len(self._problems) > before or handler is None:
            return
        made = self._attempt(name, lambda: build_options(addresses, values, rules=rules, password=password), "listen")
        if made is None:
            return
        if isinstance(handler, ForwardHandler):
            for address in addresses:
                self._attempt(name, partial(handler.check_listener, address), "handler")
        for misuse in find_amplification(addresses, made, text, KEYS):
            self._complain(name, misuse.name, misuse.message, misuse.hint, "amplification")
        of_tls = [(option, value) for option, value in values.items() if option.startswith(("tls.", "dtls."))]
        tls_mark = (password, *of_tls, *_contents(values, "tls."), *_contents(values, "dtls."))
        self._doubt(name, addresses, values, made[0])
        for address, options in zip(addresses, made, strict=True):
            opening = Opening(
                name=name, address=address, handler=handler, options=options, handler_text=text,
                handler_mark=handler_mark, handler_values=forward, tls_mark=tls_mark,
            )  # fmt: skip
            self._openings.append(opening)

    def _attempt(self, name: str, make: Callable[[], T], key: str) -> T | None:
        try:
            return make()
        except InvalidOption as error:
            option, message = self._of_option(name, error)
            is_missing = option == "tls.password" and error.value is None
            self._complain(name, option or key, message, UNLOCK_HINT if is_missing else error.hint)
        except CommandError as error:
            self._complain(name, key, error.message, error.hint, error.code)
        return None

    def _make_handler(self, text: str, values: Mapping[str, Any], app_dir: Path, mark: object) -> Handler:
        if self._leaves_modules and is_of_module(text):
            return discard  # in its place, until `Configuration.with_modules`
        return self._known.get(mark) or make_forwarder(text, values) or find_handler(text, app_dir, "app_dir")[1]

    def _read_password(self, table: Mapping[tuple[str, ...], Any]) -> bytes | None:
        file: str | None = table.get(("key_password_file",))
        variable: str | None = table.get(("key_password_env",))
        if file is not None and variable is not None:
            raise UsageError("key_password_file and key_password_env are both given.", hint="Give one of them.")
        if variable is None:
            return read_password(file, "key_password_file")
        if not (password := os.environb.get(variable.encode())):
            raise UsageError(f"key_password_env: the environment has no {variable}.", code="bad_tls")
        return password

    def _doubt(
        self, name: str, addresses: Sequence[Address], values: Mapping[str, Any], options: ListenerOptions
    ) -> None:
        for doubt in find_doubts(addresses, values, options, KEYS):
            self._doubts.append(f"listeners.{name}: {doubt}")
        rules = options.access_list()
        if rules.rules and rules.default is Action.ALLOW and all(rule.action is Action.ALLOW for rule in rules.rules):
            doubt = 'access_rules only allow, and whoever matches none is let in: end them with "deny all"'
            self._doubts.append(f"listeners.{name}: {doubt}")

    def _of_option(self, listener: str, error: InvalidOption) -> tuple[str, str]:
        """The name of a wrong option, and what is wrong in the words of a file."""
        name = error.option or ""
        if name not in OPTIONS and f"forward.{name}" in OPTIONS:
            name = f"forward.{name}"
        if name.startswith("dtls.") and ("listeners", listener, *PATHS.get(name, ())) not in self._source.lines:
            name = name[1:]  # DTLS shares the keys for certificates with TLS
        reason = error.reason.removesuffix(".")
        called = "key" if name == "tls.password" else key_of(name)
        if error.value is None or error.value is ...:
            return name, f"{called}: {reason}." if called else f"{reason}."
        value = error.value if isinstance(error.value, str | int | float | list | tuple) else str(error.value)
        return name, f"{called} = {write_toml(value)}: {reason}."

    def _complain(
        self, name: str, option: str, message: str, hint: str | None = None, code: str = "bad_option"
    ) -> None:
        path = ("listeners", name, *PATHS.get(option, (option,)))
        if option == "tls.password":
            given = self._source.data["listeners"][name]
            path = (*path[:2], next((key for key in PASSWORD_KEYS if key in given), "key"))
        self._problems.append(self._source.problem(path, message, hint, code))


def _twice(addresses: Sequence[Address]) -> Iterator[Address]:
    return (address for position, address in enumerate(addresses) if address in addresses[:position])


def _contents(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """The files among the values of options, and what they hold."""
    for option, value in values.items():
        if option.startswith(prefix) and OPTIONS[option].kind.placeholder == "FILE" and value is not None:
            yield option, hash_of(value)


def hash_of(file: str) -> str:
    """What tells the content of a file from another; empty where it cannot be read."""
    try:
        return sha256(read_regular_file(file, MAX_BYTES)).hexdigest()
    except OSError:
        return ""
