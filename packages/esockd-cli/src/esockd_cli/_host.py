"""What a process has beside its listeners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esockd_cli._account import read_account
from esockd_cli._errors import UsageError, bad_value
from esockd_cli._log_file import stderr_in_file
from esockd_cli._logs import set_up_logs
from esockd_cli.metrics.address import read_metrics_address
from esockd_core import InvalidAddress, raise_open_file_limit

if TYPE_CHECKING:
    import typer

    from esockd_cli._output import Output
    from esockd_core import Address
    from esockd_core.privileges import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a process has beside its listeners.

    Attributes:
        metrics: Where metrics are served; None for nowhere.
        account: The user that serves; None for the one that starts it.
    """

    metrics: Address | None = None
    account: Account | None = None


def read_host(*, metrics: str | None, user: str | None, group: str | None) -> Host:
    """Read what was given on a command line or in a file.

    Args:
        metrics: Where metrics are served.
        user: The user that serves.
        group: The group of that user.

    Raises:
        UsageError: A value is not valid.
        CommandError: This process cannot become another user.
    """
    account = read_account(user, group)
    try:
        return Host(metrics=None if metrics is None else read_metrics_address(metrics), account=account)
    except InvalidAddress as error:
        raise bad_value(error, f"--metrics {metrics}", code="bad_address") from error


def set_up_process(ctx: typer.Context, output: Output, host: Host, *, has_dashboard: bool) -> None:
    """Make this process ready to serve: where its logs go, how many descriptors it may have, and what it shows.

    Args:
        ctx: Of the command, which lasts as long as the logs go where they go.
        output: Where logs go, and how they look.
        host: What the process has beside its listeners.
        has_dashboard: Whether it is to show its own dashboard.

    Raises:
        UsageError: There is no terminal for the dashboard.
        CommandError: The file of the logs cannot be written.
    """
    ctx.with_resource(stderr_in_file(output.log_file, host.account))
    set_up_logs(output, host.account)
    raise_open_file_limit()
    if has_dashboard:
        from esockd_cli.top.command import has_screen  # noqa: PLC0415 (a server without it imports no renderer)

        if not has_screen(output):
            raise UsageError("--dashboard needs a terminal, and --json leaves none.")
