"""The form of a configuration file, which pydantic checks as a whole: every key with what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import PydanticCustomError

from esockd_cli._errors import did_you_mean
from esockd_cli.config.explain import KeyProblem, explain
from esockd_cli.config.keys import (
    LISTENER_KEYS,
    PATHS,
    PROGRAM_KEYS,
    BadItem,
    ProgramKey,
    absolute_static,
    read_value,
)
from esockd_core import OPTIONS, Address, BadValueError, InvalidAddress, InvalidOption, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Read: TypeAlias = Callable[[Any, Path], Any]
KeyPath: TypeAlias = tuple[str, ...]


class Table(BaseModel):
    """A table that has these keys and no others."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def _field(read: Read, *, is_needed: bool = False) -> Any:
    def validate(value: Any, info: ValidationInfo) -> Any:
        return read(value, cast("Path", info.context))

    return (Annotated[Any, PlainValidator(validate)], ... if is_needed else None)


def _bad_value(error: BadValueError, value: object, index: int | None = None) -> PydanticCustomError:
    reason = error.reason.removesuffix(".")
    return PydanticCustomError(
        "bad_value", "{reason}", {"reason": reason, "hint": error.hint, "value": value, "index": index}
    )


def _bad(reason: str, value: object, hint: str | None = None, index: int | None = None) -> PydanticCustomError:
    return PydanticCustomError(
        "bad_value", "{reason}", {"reason": reason, "hint": hint, "value": value, "index": index}
    )


def _option_reader(name: str) -> Read:
    def read(value: Any, folder: Path) -> Any:
        try:
            return read_value(OPTIONS[name], value, folder)
        except BadItem as item:
            raise _bad_value(item.error, value[item.index], item.index) from item
        except InvalidOption as error:
            raise _bad_value(error, value) from error

    return read


def _program_reader(key: ProgramKey) -> Read:
    def read(value: Any, folder: Path) -> Any:
        del folder
        if key.words is None:
            if not isinstance(value, bool):
                raise _bad("it takes true or false", value)
            return value
        is_number = key.takes_number and isinstance(value, int) and not isinstance(value, bool)
        if not is_number and (not isinstance(value, str) or not value):
            raise _bad("it takes a number or a text" if key.takes_number else "it takes a text", value)
        if key.check is not None:
            try:
                key.check(str(value))
            except BadValueError as error:
                raise _bad_value(error, value) from error
        if key.words and value not in key.words:
            raise _bad(f"it takes one of {', '.join(key.words)}", value, did_you_mean(str(value), key.words))
        return value

    return read


def _read_handler(value: Any, folder: Path) -> str:
    return absolute_static(_read_text(value, folder, "a handler such as echo"), folder)


def _read_listen(value: Any, folder: Path) -> tuple[Address, ...]:
    del folder
    if not isinstance(value, list):
        return (_read_address(value, None),)
    if not value:
        raise _bad("it takes an address or a list of them", value)
    return tuple(_read_address(each, index) for index, each in enumerate(value))


def _read_address(value: Any, index: int | None) -> Address:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _bad('it takes an address such as 5000, "*:5000" or "unix:/path"', value, index=index)
    try:
        return parse_address(value)
    except InvalidAddress as error:
        raise _bad_value(error, value, index) from error


def _read_password_file(value: Any, folder: Path) -> str:
    return str(folder / _read_text(value, folder, "the path of a file"))


def _read_variable(value: Any, folder: Path) -> str:
    return _read_text(value, folder, "the name of a variable of the environment")


def _read_text(value: Any, _: Path, what: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _bad(f"it takes {what}", value)
    return value


def _check_name(name: str) -> str:
    if not name or not name.isprintable() or {*name} & {*'@ "='}:
        raise _bad('the name of a listener has no blanks, quotes, "@" or "="', name)
    return name


READERS: Final[dict[str, Read]] = {
    "handler": _read_handler,
    "listen": _read_listen,
    "key_password_file": _read_password_file,
    "key_password_env": _read_variable,
}


@cache
def program_model() -> type[Table]:
    """The form of the table `[esockd]`."""
    fields: dict[str, Any] = {key: _field(_program_reader(kind)) for key, kind in PROGRAM_KEYS.items()}
    return create_model("Program", __base__=Table, **fields)


@cache
def listener_model() -> type[Table]:
    """The form of a table `[listeners.NAME]`."""
    fields: dict[str, Any] = {
        key: _field(READERS[key], is_needed=key in ("handler", "listen")) for key in LISTENER_KEYS
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, path in PATHS.items():
        place = fields if len(path) == 1 else groups.setdefault(path[0], {})
        place[path[-1]] = _field(_option_reader(name))
    for group, own in groups.items():
        fields[group] = (create_model(group, __base__=Table, **own) | None, None)
    return create_model("Listener", __base__=Table, **fields)


@cache
def config_model() -> type[Table]:
    """The form of a whole file."""
    listeners = dict[Annotated[str, AfterValidator(_check_name)], listener_model()]  # type: ignore[misc,valid-type]
    fields: dict[str, Any] = {
        "esockd": (program_model() | None, None),
        "listeners": (Annotated[listeners, Field(min_length=1)], ...),
    }
    return create_model("Config", __base__=Table, **fields)


def find_errors(data: Mapping[str, Any], folder: Path) -> list[KeyProblem]:
    """Check a whole file.

    Args:
        data: The file as the parser read it.
        folder: Relative paths start from it.
    """
    try:
        config_model().model_validate(data, context=folder)
    except ValidationError as error:
        return [explain(each) for each in error.errors(include_url=False)]
    return []


def read_tables(data: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, dict[KeyPath, Any]]]:
    """Read the tables in which nothing is wrong.

    Args:
        data: The file as the parser read it.
        folder: Relative paths start from it.

    Returns:
        What the table `[esockd]` gives, by key; and what each listener's gives, by the path of the key.
    """
    program = _read_table(program_model(), _without_errors(data.get("esockd", {}), folder), folder) or {}
    given = data.get("listeners")
    tables = {
        name: _read_table(listener_model(), table, folder)
        for name, table in (given.items() if isinstance(given, dict) else ())
    }
    return (
        {key: value for (key,), value in program.items()},
        {name: table for name, table in tables.items() if table is not None},
    )


def _without_errors(table: Any, folder: Path) -> Any:
    """The table `[esockd]` without its wrong keys: the right ones say what the listeners need, as where modules are."""
    try:
        program_model().model_validate(table, context=folder)
    except ValidationError as error:
        wrong = {each["loc"][0] for each in error.errors() if each["loc"]}
        return {key: value for key, value in table.items() if key not in wrong} if isinstance(table, dict) else table
    return table


def _read_table(model: type[Table], table: Any, folder: Path) -> dict[KeyPath, Any] | None:
    try:
        return dict(_flatten(model.model_validate(table, context=folder)))
    except ValidationError:
        return None


def _flatten(table: Table) -> Iterator[tuple[KeyPath, Any]]:
    for key in table.model_fields_set:
        value = getattr(table, key)
        if isinstance(value, Table):
            yield from (((key, *path), each) for path, each in _flatten(value))
        else:
            yield (key,), value
