"""`esockd config`: what may stand in a configuration file, and what is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esockd_cli._output import Output
from esockd_cli._parameters import Instance, Listener, speaks

if TYPE_CHECKING:
    from esockd_core import ControlClient

EXAMPLES = {"config example": "> edge.toml", "config show": "echo"}


@speaks
def config_example_command(output: Output) -> int:
    """Write a configuration file with every key, commented."""
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli.config.example import example  # noqa: PLC0415

    text = example()
    output.data(text.rstrip("\n"), example=text)
    return ExitCode.OK


@speaks
def config_show_command(output: Output, *, listener: Listener = None, instance: Instance = None) -> int:
    """Show what is in force in an instance of esockd run, and where each value comes from."""
    from itertools import groupby  # noqa: PLC0415

    from esockd_cli._asking import ask, ask_program  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._instances import choose_listener  # noqa: PLC0415

    async def look(client: ControlClient) -> tuple[Any, tuple[str, str] | None]:
        answer = await ask_program(client, "show_config")
        if listener is None:
            return answer, None
        status = choose_listener(await client.listeners(), listener, client.greeting.name)
        return answer, (status.name, status.address)

    answer, wanted = ask(look, instance, listener=listener)
    rows = [row for row in answer["rows"] if wanted in (None, (row["listener"], row["address"]))]
    if output.as_json:
        output.data(None, file=answer["file"], values=rows)
        return ExitCode.OK
    widest = max(len(f"{row['key']} = {row['value']}") for row in rows)
    for (name, address), of_table in groupby(rows, lambda row: (row["listener"], row["address"])):
        output.data(f"[listeners.{clean(name)}]  # {clean(address)}" if name else "[esockd]")
        for row in of_table:
            text = clean(f"{row['key']} = {row['value']}")
            output.data(f"{text:<{min(widest, 60)}}  # {clean(row['source'])}")
    return ExitCode.OK
