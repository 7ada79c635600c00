"""Listeners of one file that workers cannot serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esockd_cli._opening import Opening
    from esockd_cli.config.problems import Problem
    from esockd_cli.config.source import Source


def find_datagrams(source: Source, openings: Iterable[Opening]) -> Iterator[Problem]:
    """Find listeners of datagrams."""
    for opening in openings:
        if opening.address.is_datagram:
            yield source.problem(
                ("listeners", opening.name, "listen"),
                f"{opening.address}: workers serve no datagrams.",
                "Give this listener a file of its own, and run that without workers.",
                "no_workers",
            )
