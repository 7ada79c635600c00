"""Texts of a command line as they are: the parser would import pydantic to read them, and double what a start costs."""

from __future__ import annotations

from typing import Any, Final

TEXTS: Final = (str, list[str])


class Reader:
    """Reads the value of a parameter in the place of typer's, which is built when something is to be read.

    Args:
        param: The parameter.
    """

    def __init__(self, param: Any) -> None:
        self._is_text = param.type_descriptor.annotation in TEXTS
        self._build = param.get_runtime_param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value, as the function of the command takes it."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._is_text or not isinstance(value, str | tuple | list):  # a default is of its type already
            return value
        return self._build().coerce(value, param=param, ctx=ctx)


def read_as_they_are(params: list[Any]) -> list[Any]:
    """Let parameters do without pydantic as long as they can, and give them back."""
    for param in params:
        # From typer 0.29 on; before, nothing read so much.
        if hasattr(param, "type_descriptor") and "get_runtime_param" not in vars(param):
            reader = Reader(param)
            param.get_runtime_param = lambda reader=reader: reader
    return params
