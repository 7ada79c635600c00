"""Asking a running instance over its control socket, for the duration of one command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from esockd_cli._errors import CommandError, ExitCode, UsageError
from esockd_cli._failures import command_error
from esockd_cli._instances import choose_instance, choose_listener, short_name, unreachable
from esockd_core import ControlClient, EsockdError, UnknownMethod

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from esockd_core import ListenerControl, ListenerStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """The listener that a command is about.

    Attributes:
        client: Connected to its instance.
        status: What it is.
        name: What it is called on a command line: with its address where another one has its name.
        control: Inspects and changes it.
    """

    client: ControlClient
    status: ListenerStatus
    name: str
    control: ListenerControl

    @property
    def fields(self) -> dict[str, object]:
        """Which listener it is, for scripts."""
        return {
            "instance": self.client.greeting.name,
            "listener": self.status.name,
            "address": self.status.address,
        }


def ask(
    question: Callable[[ControlClient], Awaitable[T]],
    instance: str | None,
    *,
    listener: str | None = None,
    is_change: bool = False,
) -> T:
    """Connect to an instance and ask it something.

    Args:
        question: Asks, and tells the answer.
        instance: The name of the instance; None for the only one, or the only one that has the listener.
        listener: The listener that was named.
        is_change: Whether it may change something; otherwise the instance is told to refuse that.

    Raises:
        CommandError: There is no such instance, or it refuses.
    """

    async def run() -> T:
        chosen = await choose_instance(instance, listener)
        client = ControlClient(chosen, read_only=not is_change)
        try:
            await client.__aenter__()
        except EsockdError as error:
            raise unreachable(error, chosen) from error
        try:
            answer = await question(client)
        except BaseException as error:
            await client.__aexit__(type(error), error, error.__traceback__)
            raise
        await client.__aexit__(None, None, None)
        return answer

    try:
        return anyio.run(run)
    except EsockdError as error:
        raise command_error(error) from error


def ask_listener(
    question: Callable[[Asked], Awaitable[T]], listener: str | None, instance: str | None, *, is_change: bool = False
) -> T:
    """Ask one listener of an instance something; see `ask`."""

    async def find_and_ask(client: ControlClient) -> T:
        listeners = await client.listeners()
        status = choose_listener(listeners, listener, client.greeting.name)
        name = short_name(status, listeners)
        return await question(Asked(client, status, name, client.listener(status.name, status.address)))

    return ask(find_and_ask, instance, listener=listener, is_change=is_change)


async def ask_program(client: ControlClient, method: str, **params: Any) -> Any:
    """Ask what only `esockd open` and `esockd run` answer, or `run` alone.

    Raises:
        CommandError: The instance was started in another way.
    """
    try:
        return await client.call(method, **params)
    except UnknownMethod as error:
        if method == "upgrade":
            raise CommandError(
                f"{client.greeting.name} cannot be upgraded: esockd open or esockd run did not start it.",
                code="no_upgrade",
                status=ExitCode.FAILED,
            ) from error
        raise CommandError(
            f"{client.greeting.name} has no configuration file: esockd run did not start it.",
            code="no_configuration",
            status=ExitCode.FAILED,
        ) from error


def split_words(words: Sequence[str], *names: str) -> tuple[str | None, list[str]]:
    """Tell the listener, which may be left out, from what follows it.

    Args:
        words: What was typed.
        names: What follows the listener.

    Raises:
        UsageError: It is too much or too little.
    """
    if len(words) == len(names):
        return None, [*words]
    if len(words) == len(names) + 1:
        return words[0], [*words[1:]]
    raise UsageError(f"it takes [LISTENER] {' '.join(names)}, and {len(words)} words were given.")
