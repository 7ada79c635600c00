"""`esockd suspend`, `resume`, `drain`, `close`, `reopen`, `restart` and `upgrade`: the life of listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import Instance, Listener, Yes, speaks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_cli._asking import Asked
    from esockd_core import ControlClient, ListenerControl, Unset

EXAMPLES = {
    "suspend": "echo",
    "resume": "echo",
    "drain": "echo --timeout 30s --rate 200/s",
    "close": "echo",
    "reopen": "echo --address 127.0.0.1:5001",
    "restart": "-i echo",
    "upgrade": "-i echo --timeout 2m",
}


@speaks
def suspend_command(output: Output, *, listener: Listener = None, instance: Instance = None) -> int:
    """Stop accepting; open connections go on, and new clients wait in the kernel's queue."""
    result = "is suspended: new clients wait in the kernel's queue until esockd resume {0}"
    return _switch(output, listener, instance, lambda control: control.suspend(), state="suspended", result=result)


@speaks
def resume_command(output: Output, *, listener: Listener = None, instance: Instance = None) -> int:
    """Accept again."""
    return _switch(
        output, listener, instance, lambda control: control.resume(), state="running", result="accepts again"
    )


def _switch(
    output: Output,
    listener: str | None,
    instance: str | None,
    switch: Callable[[ListenerControl], Awaitable[None]],
    *,
    state: str,
    result: str,
) -> int:
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    async def change(asked: Asked) -> Asked:
        await switch(asked.control)
        return asked

    asked = ask_listener(change, listener, instance, is_change=True)
    output.data(None, **asked.fields, state=state)
    output.note(f"{asked.name} {result.format(asked.name)}")
    return ExitCode.OK


@speaks
def drain_command(
    output: Output,
    *,
    listener: Listener = None,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="TIME", help="For each handler; its shutdown_timeout when not given."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate", metavar="RATE", help="Connections told in a time, such as 200/s; all at once otherwise."
        ),
    ] = None,
    yes: Yes = False,
    instance: Instance = None,
) -> int:
    """Close a listener gracefully, and return when its last connection has ended.

    It stops accepting, serves who is queued, and tells each handler. Ctrl-C leaves it draining.
    """
    from esockd_cli._durations import parse_rate, parse_timeout  # noqa: PLC0415
    from esockd_core import UNSET  # noqa: PLC0415

    timeout_s: float | Unset | None = UNSET if timeout is None else parse_timeout(timeout)
    per_s = None if rate is None else parse_rate(rate)
    return _end(output, listener, instance, timeout_s, per_s, yes=yes)


@speaks
def close_command(output: Output, *, listener: Listener = None, yes: Yes = False, instance: Instance = None) -> int:
    """Close a listener gracefully, each handler having its shutdown_timeout.

    esockd open ends with its last listener.
    """
    from esockd_core import UNSET  # noqa: PLC0415

    return _end(output, listener, instance, UNSET, None, yes=yes)


def _end(
    output: Output,
    listener: str | None,
    instance: str | None,
    timeout_s: float | Unset | None,
    per_s: float | None,
    *,
    yes: bool,
) -> int:
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_core import ListenerClosed  # noqa: PLC0415

    async def end(asked: Asked) -> Asked:
        if asked.status.state not in ("running", "suspended", "draining"):
            raise ListenerClosed(f"listener {asked.name} is {asked.status.state}")
        count = (await asked.control.get_stats()).current_connections
        connections = f"{count} open connection{'s'[: count != 1]}"
        output.confirm(f"Close {asked.name}, which has {connections}?", yes=yes)
        if count:
            output.note(f"{asked.name} is draining {connections}")
        await asked.control.drain(timeout_s, per_s)
        return asked

    asked = ask_listener(end, listener, instance, is_change=True)
    output.data(None, **asked.fields, state="closed")
    output.note(f"{asked.name} is closed")
    return ExitCode.OK


@speaks
def reopen_command(
    output: Output,
    *,
    listener: Listener = None,
    address: Annotated[
        str | None,
        typer.Option("--address", "-a", metavar="LISTEN", help="Where to listen from now on; where it was otherwise."),
    ] = None,
    instance: Instance = None,
) -> int:
    """Close the listening sockets and open new ones, here or at another address; connections stay open."""
    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    async def reopen(asked: Asked) -> tuple[tuple[str, ...], Asked]:
        await asked.control.reopen(address)
        # It may have moved, and the control with it.
        return (await asked.control.get_status()).addresses, asked

    addresses, asked = ask_listener(reopen, listener, instance, is_change=True)
    output.data(
        "\n".join(f"{asked.status.name} listening on {clean(each)}" for each in addresses),
        **{**asked.fields, "address": address or asked.status.address},
        addresses=[*addresses],
    )
    return ExitCode.OK


@speaks
def restart_command(output: Output, *, instance: Instance = None) -> int:
    """Replace the workers of an instance one after the other, by ones that run the code installed now.

    Each takes over once it accepts, on the same sockets; the one before finishes its connections. If one cannot start,
    the workers before go on.
    """
    from esockd_cli._asking import ask  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    async def restart(client: ControlClient) -> tuple[str, int]:
        await client.restart()
        return client.greeting.name, (await client.get_instance()).workers

    name, workers = ask(restart, instance, is_change=True)
    output.data(None, instance=name, workers=workers)
    output.note(f"{workers} worker{'s'[: workers != 1]} of {name} replaced")
    return ExitCode.OK


@speaks
def upgrade_command(
    output: Output,
    *,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="For the new program to be ready, up to 1h.")
    ] = "60s",
    instance: Instance = None,
) -> int:
    """Start the program of an instance anew, with the code installed now, on the same sockets.

    The program before goes on until the new one is ready, and then finishes its connections. If the new one cannot
    start, it goes on as it was.
    """
    from esockd_cli._asking import ask, ask_program  # noqa: PLC0415
    from esockd_cli._durations import parse_duration  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    timeout_s = parse_duration(timeout, "--timeout", "1h")

    async def upgrade(client: ControlClient) -> tuple[str, dict[str, int]]:
        return client.greeting.name, await ask_program(client, "upgrade", timeout=timeout_s)

    name, done = ask(upgrade, instance, is_change=True)
    output.data(None, instance=name, pid=done["pid"], replaced=done["replaced"])
    output.note(f"pid {done['pid']} serves {name} now; pid {done['replaced']} finishes its connections")
    return ExitCode.OK
