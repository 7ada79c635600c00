"""The interface to inspect and change a listener, in the same process or another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Final, Unpack

if TYPE_CHECKING:
    from esockd_core._admission.explain import Explanation
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.changes import OptionPlan
    from esockd_core._stats.counters import Refusal, Stats
    from esockd_core._stats.top_sources import TopSource
    from esockd_core.control.rehearsal import RehearsalReport
    from esockd_core.control.values import (
        Acceptor,
        ConnectionInfo,
        ConnectionPage,
        ListenerStatus,
        OptionsView,
        RuleDecision,
        RulesView,
    )


class Unset(Enum):
    """Says that an argument was not given, if None has a meaning of its own."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

REHEARSAL_TIME: Final = 600.0  # seconds; nobody has to remember to end one


class ListenerControl(ABC):
    """Inspects and changes one listener, in this process or another one.

    `Listener` implements it. The methods return plain values of the moment: each has `as_dict`, which gives what JSON
    can hold, and its class has `from_dict`. Asking takes nothing from connections. A change that raises has changed
    nothing.

    Every method may raise `ListenerClosed` if the listener is gone or in the wrong state. A bad argument is an
    `InvalidOption`, with the name of the argument in `option`.
    """

    # Looking

    @abstractmethod
    async def get_status(self) -> ListenerStatus:
        """Name, state, addresses and handler."""

    @abstractmethod
    async def get_stats(self) -> Stats:
        """Every counter."""

    @abstractmethod
    async def get_options(self) -> OptionsView:
        """The options in force."""

    @abstractmethod
    async def get_acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors, one or more for each socket."""

    @abstractmethod
    async def get_refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets, at most 256, oldest first."""

    @abstractmethod
    async def get_top_sources(self, most: int = 10) -> tuple[TopSource, ...]:
        """The sources that came most often, admitted or not, most frequent first.

        They are counted in bounded space. A source that comes rarely may be missing, and counts may be too low once
        many different sources have come.

        Args:
            most: The most sources to return, 1 to 512.

        Raises:
            InvalidOption: If `most` is out of bounds.
        """

    @abstractmethod
    async def explain(self, address: str, proxy: str | None = None) -> Explanation:
        """Tell what would happen to a client that came now, stage by stage. It takes no token and calls no hook.

        Args:
            address: The client's address, or "unix:".
            proxy: The address of the proxy that the client would use, if the listener takes PROXY headers; None for
                none.

        Raises:
            InvalidOption: If one of them is not an address.
        """

    # Options

    @abstractmethod
    async def plan_options(self, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Tell what `set_options` would do, but change nothing.

        Raises:
            InvalidOption: As for `set_options`.
        """

    @abstractmethod
    async def set_options(self, *, reopen: bool = False, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Change single options. Open connections are left alone.

        Args:
            reopen: Whether new listening sockets may be opened for options that need them. Connections stay open.
            changes: Options by name; nested ones as a whole, or as mappings that change some. Functions and objects of
                the program are for listeners of the same process only.

        Returns:
            The changes.

        Raises:
            InvalidOption: If an option is unknown, out of bounds, does not apply, or needs `reopen`.
            CannotBind: If the kernel refuses an option. With `reopen`, also as for `reopen` and with the same
                consequences.
        """

    @abstractmethod
    async def reset_options(self, *, reopen: bool = False, **options: Unpack[OptionArguments]) -> OptionPlan:
        """Replace all options: those not given go back to their defaults, access rules included.

        Args:
            reopen: As for `set_options`.
            options: The new options.

        Returns:
            The changes.

        Raises:
            InvalidOption: As for `set_options`, and if the listener is for TLS and no `tls` is given.
            CannotBind: As for `set_options`.
        """

    @abstractmethod
    async def set_tls(self) -> None:
        """Read the files of certificates and keys again, for new connections. Open ones go on unchanged.

        To change the files, set the option: `set_options(tls={"certfile": ..., "keyfile": ...})`.

        Raises:
            InvalidOption: If a file is missing, unreadable or does not match, which leaves the files in force that were
                read before. Also if the listener does not speak TLS.
        """

    @abstractmethod
    async def set_handler(self, handler: str) -> None:
        """Serve new connections by another handler. Open ones keep theirs.

        Args:
            handler: The place to import it from, as "package.module:name". A class of callbacks is instantiated. A
                `Listener` also takes the handler itself.

        Raises:
            InvalidOption: If no handler is found there.
        """

    # Access rules; a change applies from the next client on

    @abstractmethod
    async def get_access_rules(self) -> RulesView:
        """The rules in their order, and the decision for an address that none of them matches."""

    @abstractmethod
    async def allow(self, network: str) -> None:
        """Let clients of a network, or "all", in, by a rule before all others.

        Raises:
            InvalidOption: If it is not a network, or if the rules have this one already.
        """

    @abstractmethod
    async def deny(self, network: str) -> None:
        """Keep clients of a network, or "all", out, by a rule before all others.

        Open connections stay; see `kill_connections`.

        Raises:
            InvalidOption: If it is not a network, or if the rules have this one already.
        """

    @abstractmethod
    async def insert_rule(self, index: int, rule: str) -> None:
        """Insert a rule, such as "deny 10.0.0.0/8", at a position from 0.

        Raises:
            InvalidOption: If it is not a rule, if the rules have it already, or if the position is beyond the end.
        """

    @abstractmethod
    async def remove_rule(self, rule: str) -> None:
        """Remove a rule.

        Raises:
            InvalidOption: If it is not a rule, or not one of these.
        """

    @abstractmethod
    async def replace_rules(self, *rules: str) -> None:
        """Exchange all rules at once.

        Raises:
            InvalidOption: If one of them is not a rule or appears twice.
        """

    @abstractmethod
    async def test_rules(self, address: str) -> RuleDecision:
        """The decision of the rules about an address, and the deciding rule.

        Raises:
            InvalidOption: If it is not an address.
        """

    # Rehearsals, one at a time

    @abstractmethod
    async def rehearse(
        self, *rules: str, duration: float = REHEARSAL_TIME, **changes: Unpack[OptionArguments]
    ) -> RehearsalReport:
        """Judge every client by changed rules and limits too, refuse nobody, and count who would have been refused.

        The changed listener is imagined with tokens and places of its own, and begins with those of the real one. A
        client that it would have refused takes no place in it. One that the real listener refuses leaves it at once,
        because nobody knows how long it would have stayed. The program's own `limiter` and `load_hook` are not asked
        again: their answer to the real listener counts.

        Other changes that are made meanwhile hold for the imagined listener too. If its own do not fit any more, the
        rehearsal ends.

        Args:
            rules: Access rules, such as "deny 203.0.113.0/24", that are put before all others in this order.
            duration: The most seconds that it lasts, up to a week. The report stays.
            changes: Options by name: `max_connections`, `max_connections_per_source`, `max_conn_rate`,
                `max_conn_rate_per_source`, `max_handshaking`, `max_loop_lag`, `access_rules`, and `trusted` and
                `access_rules_on` of `proxy_protocol`, given as a mapping.

        Returns:
            The report, which counts nothing yet.

        Raises:
            RehearsalConflict: If another one is running.
            InvalidOption: If nothing is given, if an option cannot be rehearsed or is out of bounds, or if the access
                rules have a rule already.
        """

    @abstractmethod
    async def get_rehearsal(self) -> RehearsalReport | None:
        """The report of the rehearsal that is running, or of the last one; None if it was committed or cancelled."""

    @abstractmethod
    async def commit_rehearsal(self) -> RehearsalReport:
        """Make live what was rehearsed, all of it or nothing, and end the rehearsal. It may have ended by itself.

        Open connections stay. An option that has had another value since the rehearsal began is never overwritten.

        Returns:
            The last report, with what was changed.

        Raises:
            RehearsalConflict: If there is none, or if somebody else has changed the same options or rules meanwhile.
            InvalidOption: If the options in force do not allow it any more.
        """

    @abstractmethod
    async def cancel_rehearsal(self) -> RehearsalReport:
        """End a rehearsal, forget it, and return its last report.

        Raises:
            RehearsalConflict: If there is none.
        """

    # Connections

    @abstractmethod
    async def list_connections(self, network: str | None = None, *, after: int = 0, limit: int = 100) -> ConnectionPage:
        """A page of the open connections, oldest first.

        Args:
            network: Only connections of clients within it. Behind a proxy, a client is the one in the PROXY header.
            after: The `after` of the page before; 0 for the first.
            limit: The most connections in the page, 1 to 1000.

        Raises:
            InvalidOption: If `network` is not a network, or if `limit` is out of bounds.
        """

    @abstractmethod
    async def find_connection(self, connection_id: int) -> ConnectionInfo | None:
        """The connection with this id; None if there is none."""

    @abstractmethod
    async def kill_connection(self, connection_id: int) -> bool:
        """Reset a connection, counted as `killed`, and cancel its handler; return whether there was one."""

    @abstractmethod
    async def kill_connections(self, network: str) -> int:
        """Kill every connection of a client within a network, or of "all", as `kill_connection` does; return how many.

        Raises:
            InvalidOption: If it is not a network.
        """

    # Life

    @abstractmethod
    async def suspend(self) -> None:
        """Stop accepting. Open connections go on; new clients wait in the kernel's queue."""

    @abstractmethod
    async def resume(self) -> None:
        """Accept again."""

    @abstractmethod
    async def reopen(self, address: str | int | tuple[str, int] | None = None) -> None:
        """Close the listening sockets and open new ones; connections stay open and counters go on.

        Clients in the kernel's queue are served first. A suspended listener stays suspended.

        Args:
            address: Where to listen from now on; None is where it listens already, with port 0 on the same port.

        Raises:
            InvalidAddress: If the address is not valid.
            InvalidOption: If only one of address and listener is for TLS.
            AddressInUse: If somebody else listens there. The listener goes on at its old address. If it was to be
                reopened at that one, it is suspended until it is reopened.
            CannotBind: If the address cannot be opened, with the same consequences.
        """

    @abstractmethod
    async def drain(self, timeout: float | Unset | None = UNSET, rate: float | None = None) -> None:
        """Close the listener gracefully and return when its last connection has ended.

        Args:
            timeout: Seconds for each handler; None is for ever, 0 at once; `shutdown_timeout` when not given.
            rate: Connections asked in a second, so that clients do not all come back at once; None is all at once.

        Raises:
            InvalidOption: If timeout or rate is not a number in its bounds.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the listener gracefully. Each handler has `shutdown_timeout` to end."""

    @abstractmethod
    async def kill(self) -> None:
        """Close the listener and cancel every handler at once."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Return when nothing is left of the listener."""
