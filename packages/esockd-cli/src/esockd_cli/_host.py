"""What a process has beside its listeners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esockd_cli._account import read_account
from esockd_cli._errors import bad_value
from esockd_cli.metrics.address import read_metrics_address
from esockd_core import InvalidAddress

if TYPE_CHECKING:
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
