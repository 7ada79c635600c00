"""How a listener is inspected and changed, wherever it runs."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from esockd_cidr import Match, Rule, RuleLike
    from esockd_core._acceptors import Acceptor
    from esockd_core._explain import Explanation
    from esockd_core._inspection import ConnectionInfo, ConnectionPage, ListenerStatus
    from esockd_core._option_changes import OptionPlan
    from esockd_core._options import ListenerOptions
    from esockd_core._stats import Refusal, Stats
    from esockd_core._top_sources import TopSource


class Unset(Enum):
    """Says that an argument was not given, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class ListenerControl(Protocol):
    """Inspects and changes one listener; whoever holds it need not know whether that is in this process.

    `Listener` is one for itself. What the methods return are plain values of the moment, and asking costs connections
    nothing. A change that raises has changed nothing.

    Every method may raise `ListenerClosed` where the listener is gone or not in a state for it.
    """

    # Looking

    async def get_status(self) -> ListenerStatus:
        """Name, state and addresses."""
        ...

    async def get_stats(self) -> Stats:
        """Every counter."""
        ...

    async def get_options(self) -> ListenerOptions:
        """The options in force."""
        ...

    async def get_acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors, one or more for each socket."""
        ...

    async def get_refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets, at most 256, oldest first."""
        ...

    async def get_top_sources(self, most: int = 10) -> tuple[TopSource, ...]:
        """The sources that came most often, admitted or not, the most frequent first.

        They are counted in bounded space: a source that comes seldom may be missing, and an attempt more than
        counted has happened once many different ones came.
        """
        ...

    async def explain(self, address: str, upstream: str | None = None) -> Explanation:
        """Say what would happen to a client that came now, stage by stage; it spends no token and asks no hook.

        Args:
            address: The client's, or "unix:".
            upstream: The proxy it would come by, where the listener takes PROXY headers; None for none.

        Raises:
            InvalidOption: One of them is no address.
        """
        ...

    # Options

    async def plan_options(self, **changes: Any) -> OptionPlan:
        """Say what `set_options` would do, and do nothing.

        Raises:
            InvalidOption: As for `set_options`.
        """
        ...

    async def set_options(self, *, reopen: bool = False, **changes: Any) -> OptionPlan:
        """Change single options; open connections are left alone.

        Args:
            reopen: Whether new listening sockets may be opened for options that take them; connections stay open.
            changes: Options by name, nested ones as mappings of theirs or whole.

        Returns:
            What has changed.

        Raises:
            InvalidOption: An option is unknown, out of bounds, does not apply, or needs `reopen`.
            CannotBind: The kernel refuses an option. With `reopen` also as for `reopen`, and with its consequence.
        """
        ...

    async def reset_options(self, *, reopen: bool = False, **options: Any) -> OptionPlan:
        """Replace all options: those not given go back to their defaults, access rules included.

        Args:
            reopen: As for `set_options`.
            options: The new ones.

        Returns:
            What has changed.

        Raises:
            InvalidOption: As for `set_options`; or the listener is for TLS and no `tls` is given.
            CannotBind: As for `set_options`.
        """
        ...

    # Access rules; a change holds for the next client

    async def get_access_rules(self) -> tuple[Rule, ...]:
        """The rules in their order."""
        ...

    async def allow(self, network: str) -> None:
        """Let clients of a network, or "all", in: a rule before all others.

        Raises:
            esockd_cidr.InvalidRule: It is no network.
            esockd_cidr.DuplicateRule: The rules hold this one already.
        """
        ...

    async def deny(self, network: str) -> None:
        """Keep clients of a network, or "all", out: a rule before all others.

        Open connections stay; see `kill_connections`.

        Raises:
            esockd_cidr.InvalidRule: It is no network.
            esockd_cidr.DuplicateRule: The rules hold this one already.
        """
        ...

    async def insert_rule(self, index: int, rule: RuleLike) -> None:
        """Put a rule at a position, from 0.

        Raises:
            esockd_cidr.CidrError: It is no rule, there already, or the position is beyond the end.
        """
        ...

    async def remove_rule(self, rule: RuleLike) -> None:
        """Take a rule out.

        Raises:
            esockd_cidr.CidrError: It is no rule, or not there.
        """
        ...

    async def replace_rules(self, *rules: RuleLike) -> None:
        """Exchange all rules at once.

        Raises:
            esockd_cidr.CidrError: One of them is no rule, or there twice.
        """
        ...

    async def test_rules(self, address: str) -> Match | None:
        """The rule that decides about an address; None when none matches.

        Raises:
            esockd_cidr.InvalidAddress: It is no address.
        """
        ...

    # Connections

    async def list_connections(self, network: str | None = None, *, after: int = 0, limit: int = 100) -> ConnectionPage:
        """A page of the open connections, oldest first.

        Args:
            network: Only those of clients within it; a client is who a PROXY header names.
            after: The `after` of the page before; 0 for the first.
            limit: At most so many, 1 to 1000.

        Raises:
            InvalidOption: `network` is none, or `limit` out of bounds.
        """
        ...

    async def find_connection(self, connection_id: int) -> ConnectionInfo | None:
        """The connection with this id; None when there is none, or not any more."""
        ...

    async def kill_connection(self, connection_id: int) -> bool:
        """Close a connection at once, counted as `killed`, and cancel its handler; say whether there was one."""
        ...

    async def kill_connections(self, network: str) -> int:
        """Close every connection of a client within a network, or of "all", as `kill_connection` does; say how many.

        Raises:
            InvalidOption: It is no network.
        """
        ...

    # Life

    async def suspend(self) -> None:
        """Stop accepting. Open connections go on; new clients wait in the kernel's queue."""
        ...

    async def resume(self) -> None:
        """Accept again."""
        ...

    async def reopen(self, address: object = None) -> None:
        """Close the listening sockets and open new ones; connections stay open and counters go on.

        Who waits in the kernel's queue is served first. A suspended listener stays suspended.

        Args:
            address: Where to listen from now on; None is where it listens already, with port 0 on the same port.

        Raises:
            InvalidAddress: The address is none.
            InvalidOption: It is for TLS and the listener is not, or the other way round.
            AddressInUse: Somebody else listens there. At another address the listener goes on at the old one; at its
                own it is suspended until it is reopened.
            CannotBind: The address cannot be opened; likewise.
        """
        ...

    async def drain(self, timeout: float | Unset | None = UNSET, rate: float | None = None) -> None:
        """Close the listener gracefully and return when its last connection has ended.

        Args:
            timeout: Seconds for each handler; None is for ever, 0 at once; `shutdown_timeout` when not given.
            rate: Connections told in a second, so that clients do not come back as one wave; None is all at once.

        Raises:
            InvalidOption: Timeout or rate is no number that makes sense.
        """
        ...

    async def close(self) -> None:
        """Close the listener gracefully, each handler having `shutdown_timeout`."""
        ...

    async def kill(self) -> None:
        """Close the listener and cancel every handler at once."""
        ...
