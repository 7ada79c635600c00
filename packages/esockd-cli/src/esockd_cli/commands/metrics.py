"""`esockd metrics`: the counters of an instance as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_cli._output import Output
from esockd_cli._parameters import Instance, speaks

if TYPE_CHECKING:
    from esockd_core import ControlClient

EXAMPLES = {"metrics": ""}


@speaks
def metrics_command(output: Output, *, instance: Instance = None) -> int:
    """Write the metrics of an instance as Prometheus reads them.

    --metrics of esockd open and run serves the same over HTTP.
    """
    from esockd_cli._asking import ask  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli.metrics.text import write_text  # noqa: PLC0415

    async def look(client: ControlClient) -> str:
        async with client.watch(3600) as snapshots:
            return (await write_text(await anext(snapshots))).decode()

    text = ask(look, instance)
    output.data(text.rstrip("\n"), metrics=text)
    return ExitCode.OK
