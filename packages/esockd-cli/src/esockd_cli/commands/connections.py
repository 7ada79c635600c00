"""`esockd connections`: who is connected, and killing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from esockd_cli._completion import complete_listener
from esockd_cli._output import Output
from esockd_cli._parameters import LISTENER_HELP, Instance, Listener, Yes, speaks

if TYPE_CHECKING:
    from esockd_cli._asking import Asked
    from esockd_core import ConnectionInfo

EXAMPLES = {"connections list": "echo --from 10.0.0.0/8", "connections kill": "echo 203.0.113.0/24"}
HEAD = ("ID", "CLIENT", "OPEN FOR", "STATE", "TLS", "IN", "OUT", "PROXY")
PAGE = 1000


@speaks
def connections_list_command(
    output: Output,
    *,
    listener: Listener = None,
    network: Annotated[
        str | None, typer.Option("--from", metavar="CIDR", help="Only clients within it; who a PROXY header names.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many, the oldest ones.")
    ] = None,
    instance: Instance = None,
) -> int:
    """List the open connections of a listener, the oldest first."""
    import time  # noqa: PLC0415

    from esockd_cli._asking import ask_listener  # noqa: PLC0415
    from esockd_cli._columns import table  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._summary import format_bytes  # noqa: PLC0415
    from esockd_cli.top.live import describe_connection  # noqa: PLC0415
    from esockd_cli.top.text import format_age  # noqa: PLC0415

    async def look(asked: Asked) -> tuple[list[ConnectionInfo], Asked]:
        found: list[ConnectionInfo] = []
        after: int | None = 0
        while after is not None and (limit is None or len(found) < limit):
            most = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await asked.control.list_connections(network, after=after, limit=most)
            found += page.connections
            after = page.after
        return found, asked

    found, asked = ask_listener(look, listener, instance)
    now = time.time()
    rows = [
        (
            each.id,
            each.peer,
            format_age(now - each.opened_at),
            each.state,
            each.tls or "-",
            format_bytes(each.bytes_in),
            format_bytes(each.bytes_out),
            each.via or "-",
        )
        for each in map(describe_connection, found)
    ]
    output.data(
        "\n".join(table(HEAD, rows)) if rows else None,
        **asked.fields,
        connections=[each.as_dict() for each in found] if output.as_json else (),
    )
    if not rows:
        output.note(f"{asked.name} has no open connection{'' if network is None else f' from {network}'}")
    return ExitCode.OK


@speaks
def connections_kill_command(
    output: Output,
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LISTENER] ID|CIDR|all",
            help=f"A connection by its id, or those of all clients within an address, a CIDR or all. {LISTENER_HELP}",
            autocompletion=complete_listener,
        ),
    ],
    yes: Yes = False,
    instance: Instance = None,
) -> int:
    """Close connections at once, and cancel their handlers.

    The status is 1 where there was none to close.
    """
    from esockd_cli._asking import ask_listener, split_words  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415

    listener, (which,) = split_words(words, "ID|CIDR|all")
    is_id = which.isascii() and which.isdecimal()
    if not is_id:
        output.confirm(f"Close every connection of {listener or 'the listener'} from {which}?", yes=yes)

    async def kill(asked: Asked) -> tuple[int, Asked]:
        if is_id:
            return int(await asked.control.kill_connection(int(which))), asked
        return await asked.control.kill_connections(which), asked

    killed, asked = ask_listener(kill, listener, instance, is_change=True)
    if not killed:
        what = f"connection {which}" if is_id else f"open connection from {which}"
        raise CommandError(f"{asked.name} has no {what}.", code="no_connection", status=ExitCode.FAILED)
    output.data(None, **asked.fields, killed=killed)
    output.note(f"{asked.name}: {killed} connection{'s'[: killed > 1]} closed")
    return ExitCode.OK
