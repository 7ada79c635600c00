"""Methods that a program adds to its control socket, beside those of its listeners."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Call: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ProgramMethod:
    """A method of a program.

    Attributes:
        call: Takes the parameters of a request and returns the result, both as JSON has them. The client gets an
            `EsockdError` that it raises. It is cancelled if the client leaves.
        is_change: Whether it may change something, so that read-only clients may not call it.
    """

    call: Call
    is_change: bool = True
