"""`esockd ps`: which instances run, and their listeners."""

from __future__ import annotations

from esockd_cli._output import Output
from esockd_cli._parameters import speaks

EXAMPLES = {"ps": ""}


@speaks
def ps_command(
    output: Output,
) -> int:
    """List the running instances and their listeners."""
    import time  # noqa: PLC0415

    import anyio  # noqa: PLC0415

    from esockd_cli._columns import table  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._instances import find_instances  # noqa: PLC0415
    from esockd_cli.top.text import format_age  # noqa: PLC0415

    found = anyio.run(find_instances)
    rows = [
        (
            each.greeting.name,
            each.greeting.pid,
            each.greeting.version,
            each.workers or "-",
            status.name,
            status.addresses[0] if status.addresses else status.address,
            status.state,
            "-" if status.opened_at is None else format_age(time.time() - status.opened_at),
        )
        for each in found
        for status in each.listeners
    ]
    output.data(
        "\n".join(table(("INSTANCE", "PID", "VERSION", "WORKERS", "LISTENER", "ADDRESS", "STATE", "OPEN FOR"), rows)),
        instances=[
            {
                **{name: value for name, value in each.greeting.as_dict().items() if name != "methods"},
                "socket": str(each.path),
                "workers": each.workers,
                "listeners": [status.as_dict() for status in each.listeners],
            }
            for each in found
        ],
    )
    return ExitCode.OK
