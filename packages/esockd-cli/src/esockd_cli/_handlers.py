"""Finding the handler that a command line names: a built-in one, or an attribute of a user's module."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esockd_cli._errors import CommandError, ExitCode, UsageError, did_you_mean
from esockd_cli._values import parse_content
from esockd_core import CallbackHandler, InvalidAddress, handlers, parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_core import Handler

BUILT_IN: Final[dict[str, Handler]] = {
    "echo": handlers.echo,
    "discard": handlers.discard,
    "daytime": handlers.daytime,
    "chargen": handlers.chargen,
}
KINDS: Final = (*BUILT_IN, "static", "forward")
HANDLER_FORMS: Final = (
    "echo, discard, daytime, chargen, static:TEXT, static:@FILE, forward:HOST:PORT or package.module:attribute"
)


def find_handler(text: str, app_dir: Path, called: str = "--app-dir") -> tuple[str, Handler]:
    """Find a handler by its name on the command line.

    Args:
        text: One of `HANDLER_FORMS`.
        app_dir: The folder that user modules are found in, beside the usual places.
        called: How this folder is called where it was given.

    Returns:
        The name for a listener of it, and the handler.

    Raises:
        UsageError: There is no such handler, or it is something else.
        CommandError: The user's module fails when it is imported.
    """
    if text in BUILT_IN:
        return text, BUILT_IN[text]
    kind, colon, rest = text.partition(":")
    if kind == "static" and colon:
        return kind, handlers.StaticHandler(parse_content("static", rest))
    if not colon:
        hint = did_you_mean(text, KINDS) or f"Handlers are {HANDLER_FORMS}."
        raise UsageError(f'unknown handler "{text}".', code="unknown_handler", hint=hint)
    return rest.rpartition(".")[2], _as_handler(text, _import_attribute(text, kind, rest, app_dir, called))


def name_of_handler(text: str) -> str:
    """The name for a listener of a handler, which need not exist."""
    kind, colon, rest = text.partition(":")
    return kind if kind in KINDS or not colon else rest.rpartition(".")[2]


def is_of_module(text: str) -> bool:
    """Whether a handler is an attribute of a user's module."""
    kind, colon, _ = text.partition(":")
    return bool(colon) and kind not in KINDS


def require_order(handler: str, listen: Sequence[str]) -> None:
    """Recognise an address where the handler should be.

    Raises:
        UsageError: The two were swapped, or the handler was left out.
    """
    kind = handler.partition(":")[0]
    if kind in KINDS:
        return
    try:
        parse_address(handler)
    except InvalidAddress:
        return
    first = listen[0] if listen[0].partition(":")[0] in KINDS else "echo"
    raise UsageError(
        f'"{handler}" is an address: the handler comes first.',
        code="unknown_handler",
        hint=f"Write: esockd open {first} {handler}",
    )


def _import_attribute(text: str, module_name: str, attribute: str, app_dir: Path, called: str) -> object:
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise UsageError(f'unknown handler "{text}".', code="unknown_handler", hint=f"Handlers are {HANDLER_FORMS}.")
    _require_folder(app_dir, called)
    if sys.path[:1] != [folder := str(app_dir.resolve())]:  # or each reload of a configuration would add it
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _import_error(text, module_name, error, app_dir.resolve(), called) from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            known = [known for known in vars(found) if not known.startswith("_")] if hasattr(found, "__dict__") else []
            message, hint = f'cannot import "{text}": it has no "{name}".', did_you_mean(name, known)
            raise UsageError(message, code="import_failed", hint=hint) from error
    return found


def _require_folder(app_dir: Path, called: str) -> None:
    try:
        os.scandir(app_dir).close()
    except PermissionError as error:
        raise UsageError(f'{called}: this user may not read "{app_dir}".', code="import_failed") from error
    except OSError as error:
        raise UsageError(f'{called}: "{app_dir}" is not a folder.') from error


def _import_error(text: str, module_name: str, error: BaseException, app_dir: Path, called: str) -> CommandError:
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name is not None
        and f"{module_name}.".startswith(f"{error.name}.")
    ):
        return UsageError(
            f'cannot import "{text}": there is no module "{error.name}" in {app_dir}.',
            code="import_failed",
            hint=f"Name its folder with {called}.",
        )
    where = _place_of(error, app_dir)
    what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        what = f"SyntaxError: {error.msg}"
    return CommandError(
        f'cannot import "{text}": {f"{where}: " if where else ""}{what}', code="import_failed", status=ExitCode.FAILED
    )


def _place_of(error: BaseException, app_dir: Path) -> str | None:
    """The last line of the user's own code that led to an error, or of any code."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _shown(error.filename, error.lineno, app_dir)
    lines = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and frame.filename not in (__file__, importlib.__file__)
    ]
    own = [line for line in lines if Path(line[0]).is_relative_to(app_dir) and "site-packages" not in line[0]]
    chosen = (own or lines)[-1:]
    return _shown(*chosen[0], app_dir) if chosen else None


def _shown(filename: str, line: int | None, app_dir: Path) -> str:
    path = Path(filename)
    return f"{path.relative_to(app_dir) if path.is_relative_to(app_dir) else path} line {line}"


def _as_handler(text: str, found: object) -> Handler:
    if isinstance(found, type) and issubclass(found, CallbackHandler):
        try:
            return found()
        except Exception as error:
            raise CommandError(
                f'cannot make a handler of the class "{text}": {type(error).__name__}: {error}',
                code="import_failed",
                status=ExitCode.FAILED,
                hint="Give an instance instead, made in the module.",
            ) from error
    if isinstance(found, CallbackHandler):
        return found
    if not isinstance(found, type) and callable(found) and _is_coroutine_function(found):
        _check_takes_a_connection(text, found)
        handler: Any = found  # what it is was asked of the function itself
        return handler  # type: ignore[no-any-return]
    kind = "a class" if isinstance(found, type) else "a function" if inspect.isfunction(found) else repr(found)[:80]
    raise UsageError(
        f'"{text}" is {kind}, but no handler: that is a coroutine function, or a CallbackHandler.',
        code="not_a_handler",
        hint='Write "async def handle(connection): ...".',
    )


def _is_coroutine_function(found: Any) -> bool:
    while isinstance(found, partial):
        found = found.func
    return inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None))  # noqa: B004


def _check_takes_a_connection(text: str, found: Any) -> None:
    try:
        inspect.signature(found).bind(object())
    except TypeError as error:
        raise UsageError(
            f'"{text}" cannot be called with a connection alone: {error}.',
            code="not_a_handler",
            hint="Bind what else it takes with functools.partial.",
        ) from error
    except ValueError:  # a callable without a signature
        pass
