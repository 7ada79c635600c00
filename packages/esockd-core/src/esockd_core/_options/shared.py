"""`max_conn_rate` as a bucket that a Redis or Valkey server keeps for the listeners of several machines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from esockd_core._errors import InvalidOption
from esockd_core._options.special_kinds import Text
from esockd_ratelimit import RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from esockd_ratelimit import Limiter, Rate

SCHEMES: Final = ("redis", "rediss", "unix")
LEASES_IN_A_BURST: Final = 10
ANSWER_S: Final = 0.25  # for the server to answer; opening a listener, and a change of the rate, wait as long

WhenAway: TypeAlias = Literal["local", "closed", "open"]


class ServerUrl(str):
    """The URL of a server. Whoever shows it shows it without its password."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """The URL with three stars for its password."""
        parts = urlsplit(self)
        if parts.password is None:
            return str(self)
        before, _, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{before.partition(':')[0]}:***@{host}").geturl()

    def __repr__(self) -> str:
        return repr(self.shown)


class ServerUrlText(Text):
    """The URL of a Redis or Valkey server."""

    PLACEHOLDER = "URL"
    TAKES = "the URL of a Redis or Valkey server, such as redis://10.0.0.9:6379/0, rediss://... or unix:///path"

    def holds(self, value: object) -> bool:
        """Whether it is a URL with one of the schemes."""
        if not isinstance(value, str):
            return False
        try:
            parts = urlsplit(value)
            parts.port  # noqa: B018 (refuses one that is not a number)
        except ValueError:
            return False
        return parts.scheme in SCHEMES and bool(parts.path if parts.scheme == "unix" else parts.hostname)

    def write(self, value: str) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class SharedRate:
    """All that a shared bucket is made of.

    Attributes:
        server: The server.
        rate: The rate and burst of all who share it.
        lease: How many tokens to fetch at once; None for a tenth of the burst.
        processes: How many processes share it.
        when_away: What is granted while the server does not answer.
    """

    server: ServerUrl
    rate: Rate
    lease: int | None
    processes: int
    when_away: WhenAway

    def bucket(
        self, name: str, on_change: Callable[[Exception | None], None] | None = None
    ) -> AbstractAsyncContextManager[Limiter]:
        """A bucket of this name, which grants tokens inside `async with`.

        Args:
            name: The name of the listeners that share it.
            on_change: Called with the reason when the server goes away, and with None when it is back.

        Raises:
            InvalidOption: If it cannot be made of these values, or redis-py is not installed.
        """
        try:
            from esockd_ratelimit.redis import RedisTokenBucket  # noqa: PLC0415 (an extra)
        except ImportError as error:
            hint = 'Install it: pip install "esockd-core[redis]"'
            raise InvalidOption("it needs redis-py", option="shared", value=self.server.shown, hint=hint) from error
        options = {"lease": "shared_lease", "processes": "shared_processes", "when_away": "shared_when_away"}
        try:
            return RedisTokenBucket(
                str(self.server),
                f"listener:{name}",
                self.rate,
                lease=self.lease or max(1, math.floor(self.rate.burst / LEASES_IN_A_BURST)),
                processes=self.processes,
                when_away=self.when_away,
                timeout=ANSWER_S,
                on_change=on_change,
            )
        except RateLimitError as error:
            option = options.get(getattr(error, "option", ""), "max_conn_rate")
            raise InvalidOption.because(error, option, getattr(error, "value", str(self.rate))) from error
        except (ValueError, TypeError) as error:  # of redis-py, about the URL
            raise InvalidOption(str(error), option="shared", value=self.server.shown) from error
