"""Which running instance is meant, and which of its listeners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esockd_cli._errors import CommandError, ExitCode, did_you_mean
from esockd_cli._failures import START_ONE, command_error
from esockd_core import (
    ControlClient,
    EsockdError,
    InstanceUnreachable,
    InvalidAddress,
    InvalidOption,
    control_folder,
    find_control_sockets,
    parse_address,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from esockd_core import ControlGreeting, ListenerStatus

PATIENCE_S: Final = 1.0  # for one of several that may have ended


@dataclass(frozen=True, slots=True)
class Found:
    """A running instance.

    Attributes:
        greeting: What it says of itself.
        path: Its control socket.
        listeners: Its listeners.
        workers: How many worker processes it has; 0 if it serves by itself.
    """

    greeting: ControlGreeting
    path: Path
    listeners: tuple[ListenerStatus, ...]
    workers: int


async def find_instances() -> list[Found]:
    """The instances of this user that answer.

    Raises:
        CommandError: None does.
    """
    sockets = find_control_sockets()
    found = [each for path in sockets.values() if (each := await _look_at(path)) is not None]
    if not found:
        raise no_instance()
    return found


async def _look_at(path: Path) -> Found | None:
    try:
        async with ControlClient(path, read_only=True, timeout=PATIENCE_S) as client:
            return Found(client.greeting, path, await client.listeners(), (await client.get_instance()).workers)
    except EsockdError:
        return None


def no_instance() -> CommandError:
    """There is nobody to ask."""
    return CommandError(
        f"no running esockd instance (looked in {control_folder()}).",
        code="no_instance",
        status=ExitCode.NOT_FOUND,
        hint=START_ONE,
    )


async def choose_instance(name: str | None, listener: str | None = None) -> str | Path:
    """Choose the instance of a name, or the only one that runs, or the only one that has a listener.

    Args:
        name: Its name, or the path of its socket; None where it was not given.
        listener: The listener that was named; None for any.

    Returns:
        What `ControlClient` takes.

    Raises:
        CommandError: There is no instance, or there are several.
    """
    if name is not None:
        return name
    sockets = find_control_sockets()
    if len(sockets) == 1:
        return next(iter(sockets.values()))
    found = await find_instances()
    if listener is not None:
        found = [each for each in found if any(is_named(status, listener) for status in each.listeners)] or found
    if len(found) > 1:
        names = ", ".join(each.greeting.name for each in found)
        raise CommandError(
            f"{len(found)} instances run: {names}.",
            code="several_instances",
            status=ExitCode.USAGE,
            hint=f"Choose one: -i {found[0].greeting.name}",
        )
    return found[0].path


async def choose_reachable(name: str | None) -> str | Path:
    """Choose an instance as `choose_instance` does, and see that it answers.

    Raises:
        CommandError: It does not, or there are several.
    """
    chosen = await choose_instance(name)
    try:
        async with ControlClient(chosen, read_only=True):
            return chosen
    except EsockdError as error:
        raise unreachable(error, chosen) from error


def choose_listener(listeners: Sequence[ListenerStatus], text: str | None, instance: str) -> ListenerStatus:
    """Choose the listener that `NAME` or `NAME@ADDRESS` names, or the only one there is.

    Args:
        listeners: All of the instance.
        text: What was typed; None where nothing was.
        instance: The name of the instance.

    Raises:
        CommandError: There is none, or there are several.
    """
    found = [status for status in listeners if text is None or is_named(status, text)]
    if len(found) == 1:
        return found[0]
    if found:
        has_one_name = len({status.name for status in found}) == 1
        known = ", ".join(full_name(status) if has_one_name else status.name for status in found)
        what = "listeners are open" if text is None else f'listeners have the name "{text}"'
        example = full_name(found[0]) if has_one_name else found[0].name
        raise CommandError(
            f"{len(found)} {what}: {known}.",
            code="several_listeners",
            status=ExitCode.USAGE,
            hint=f"Name one, such as {example}",
        )
    if not listeners:
        raise CommandError(
            f"the instance {instance} has no open listener.", code="unknown_listener", status=ExitCode.NOT_FOUND
        )
    names = list(dict.fromkeys(status.name for status in listeners))
    raise CommandError(
        f'the instance {instance} has no listener "{text}".',
        code="unknown_listener",
        status=ExitCode.NOT_FOUND,
        hint=did_you_mean(str(text), names) or f"Open: {', '.join(map(full_name, listeners))}",
    )


def is_named(status: ListenerStatus, text: str) -> bool:
    """Whether `NAME` or `NAME@ADDRESS` is this listener: the address as it was opened, or as it is bound."""
    if text == status.name:
        return True
    if not text.startswith(f"{status.name}@"):
        return False
    address = text.removeprefix(f"{status.name}@")
    try:
        canonical = str(parse_address(address))
    except InvalidAddress:
        canonical = address
    return not {address, canonical}.isdisjoint((status.address, *status.addresses))


def full_name(status: ListenerStatus) -> str:
    """`NAME@ADDRESS`."""
    return f"{status.name}@{status.address}"


def short_name(status: ListenerStatus, listeners: Sequence[ListenerStatus]) -> str:
    """Its name, with its address where another listener has the name too."""
    return status.name if [each.name for each in listeners].count(status.name) == 1 else full_name(status)


def unreachable(error: EsockdError, instance: str | Path) -> CommandError:
    """Why an instance cannot be asked: for one that was found and has ended, as if there were none."""
    if isinstance(error, InstanceUnreachable) and not isinstance(instance, str):
        return no_instance()
    if isinstance(error, InvalidOption):
        return CommandError(
            f"-i {instance}: {error.reason}.", code="bad_option", status=ExitCode.USAGE, hint=error.hint
        )
    return command_error(error)
