"""Why admission refuses a client."""

from __future__ import annotations

from typing import Final, NamedTuple

from esockd_core._stats.counters import Refused
from esockd_core._stats.reasons import SOURCE_FORBIDDEN, SOURCE_MAX_LIMIT, SOURCE_RATE_LIMITED


class Denial(NamedTuple):
    """A refusal.

    Attributes:
        stage: The stage that refuses the client.
        reason: The deciding limit or hook in words; empty if the rules decide.
    """

    stage: Refused
    reason: str


FORBIDDEN: Final = Denial(Refused.FORBIDDEN, "")  # finding the rule takes time, and not everybody wants to know it
NO_TOKEN: Final = "max_conn_rate has no token left"  # noqa: S105 (no password)
HOOK_SAID_NO: Final = "load_hook said no"

OF_SOURCES: Final = {
    Refused.FORBIDDEN: SOURCE_FORBIDDEN,
    Refused.MAX_LIMIT: SOURCE_MAX_LIMIT,
    Refused.RATE_LIMITED: SOURCE_RATE_LIMITED,
}
"""The reasons under which the clients of PROXY headers are counted, by the stage that refuses them."""
