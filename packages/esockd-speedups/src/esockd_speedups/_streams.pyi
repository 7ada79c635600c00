from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Callable
from contextvars import Context
from typing import Any

def bind(
    *,
    stream: type,
    side: type,
    future: Future[Any],
    callback: Callable[[Any], object],
    context: Context,
    scoped_tasks: dict[Any, Any],
    current_task: Callable[[AbstractEventLoop], Task[Any] | None],
    resume: Callable[[Any, Any], object],
    end_of_stream: type[Exception],
    read_bytes: int,
    yield_every: int,
    half_a_turn: int,
) -> dict[str, Any]: ...
def in_use() -> bool: ...
def resuming() -> int: ...
