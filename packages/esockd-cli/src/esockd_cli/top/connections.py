"""The list of connections of one listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cidr import AccessList, CidrError, parse_network
from esockd_cli.top.canvas import Style
from esockd_cli.top.table import Column
from esockd_cli.top.text import clip_middle, format_age, format_bytes, to_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_cli.top.canvas import Span
    from esockd_cli.top.frame import OpenConnection
    from esockd_cli.top.glyphs import Glyphs

MAX_CONNECTIONS: Final = 1_000  # in one page of `ListenerControl.list_connections`

STATES: Final = {"open": Style.GOOD, "draining": Style.WARN, "closing": Style.DIM}


def connection_columns(
    connections: Sequence[OpenConnection], now: float, glyphs: Glyphs
) -> list[Column[OpenConnection]]:
    """The columns of the list.

    Args:
        connections: The rows, by which peers get their width.
        now: Seconds since the epoch.
        glyphs: The characters to use.
    """
    longest = max((len(to_cells(each.peer)) for each in connections), default=0)
    return [
        Column(
            title="PEER",
            cell=lambda each, width: [(clip_middle(to_cells(each.peer), width, glyphs.ellipsis), Style.BOLD)],
            width=min(max(longest, 8), 24),
            least=8,
            most=min(max(longest, 8), 48),
            turn=1,
            align="left",
            key=lambda each: each.peer,
        ),
        Column(
            title="STATE",
            cell=lambda each, width: [(each.state[:width], STATES.get(each.state, Style.PLAIN))],
            width=9,
            rank=5,
            align="left",
            key=lambda each: each.state,
        ),
        Column(
            title="AGE",
            cell=lambda each, _: [(format_age(now - each.opened_at), Style.PLAIN)],
            width=7,
            key=lambda each: now - each.opened_at,
        ),
        _bytes_column("IN", lambda each: each.bytes_in, rank=2),
        _bytes_column("OUT", lambda each: each.bytes_out, rank=2),
        Column(
            title="ID",
            cell=lambda each, _: [(str(each.id), Style.DIM)],
            width=max((len(str(each.id)) for each in connections), default=2),
            rank=6,
            key=lambda each: each.id,
        ),
        Column(
            title="TLS",
            cell=lambda each, width: [_known(each.tls, width, glyphs)],
            width=7,
            rank=7,
            align="left",
        ),
        Column(
            title="VIA",
            cell=lambda each, width: [_known(each.via, width, glyphs)],
            width=16,
            most=48,
            turn=2,
            rank=8,
            align="left",
        ),
    ]


def _known(text: str | None, width: int, glyphs: Glyphs) -> Span:
    if text is None:
        return glyphs.unknown, Style.DIM
    return clip_middle(to_cells(text), width, glyphs.ellipsis), Style.PLAIN


def _bytes_column(title: str, value: Callable[[OpenConnection], int], rank: int) -> Column[OpenConnection]:
    return Column(
        title=title, cell=lambda each, _: [(format_bytes(value(each)), Style.PLAIN)], width=9, rank=rank, key=value
    )


def read_network(text: str) -> str | None:
    """A filter as a network that the listener can look for among all its connections; None where it is none."""
    try:
        return str(parse_network(text))
    except CidrError:
        return None


def filter_connections(connections: Sequence[OpenConnection], text: str) -> list[OpenConnection]:
    """Those whose client is within a network, or whose peer or state contains a text."""
    network = read_network(text)
    if network is not None:
        wanted = AccessList([("allow", network)], "deny")
        return [each for each in connections if _is_within(wanted, each.peer)]
    text = text.casefold()
    return [each for each in connections if text in each.peer.casefold() or text in each.state]


def _is_within(wanted: AccessList, peer: str) -> bool:
    try:
        return wanted.allows(peer.rpartition(":")[0].strip("[]"))
    except CidrError:  # the path of a Unix socket
        return False
