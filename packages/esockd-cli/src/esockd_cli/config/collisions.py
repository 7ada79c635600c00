"""Listeners of one file that would be in each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esockd_cli._opening import Opening
    from esockd_cli.config.problems import Problem
    from esockd_cli.config.source import Source
    from esockd_core import Address


def find_collisions(source: Source, openings: Sequence[Opening]) -> Iterator[Problem]:
    """Find listeners that would listen where another one does."""
    for position, opening in enumerate(openings):
        for other in openings[:position]:
            if other.name != opening.name and are_in_the_way(other, opening):
                line = source.lines.get(("listeners", other.name, "listen"))
                where = "" if line is None else f", line {line}"
                yield source.problem(
                    ("listeners", opening.name, "listen"),
                    f"{opening.address} is taken by listeners.{other.name} ({other.address}{where}).",
                    "Give one of them another port.",
                    "address_in_use",
                )
                break


def are_in_the_way(one: Opening, other: Opening) -> bool:
    """Whether two listeners cannot be open at the same time."""
    return not (_shares(one) and _shares(other)) and overlap(one.address, other.address)


def _shares(opening: Opening) -> bool:
    """Whether it lets others have its address too."""
    of_socket = opening.options.udp if opening.address.is_datagram else opening.options.tcp
    return of_socket.reuse_port


def overlap(one: Address, other: Address) -> bool:
    """Whether two addresses need the same socket; names of hosts are not looked up."""
    if one.is_datagram != other.is_datagram:
        return False
    if one.port is None or other.port is None:
        return (one.kind, one.path, one.name, one.fd) == (other.kind, other.path, other.name, other.fd)
    if one.port != other.port or one.port == 0:
        return False
    return "everywhere" in (one.kind, other.kind) or not _hosts(one).isdisjoint(_hosts(other))


def _hosts(address: Address) -> set[str]:
    loopback = {"127.0.0.1", "::1"}
    return loopback if address.kind == "loopback" or address.host == "localhost" else {str(address.host)}
