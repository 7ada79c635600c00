"""Trying whether the addresses of a configuration can be opened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from esockd_cli._errors import end_once
from esockd_core import InvalidOption, Server, SocketError, handlers

if TYPE_CHECKING:
    from esockd_cli.config.problems import Problem
    from esockd_cli.config.read import Configuration


def try_addresses(read: Configuration) -> list[Problem]:
    """Open each address for a moment, all of them at the same time, and let nobody in."""
    return anyio.run(_try_addresses, read)


async def _try_addresses(read: Configuration) -> list[Problem]:
    problems: list[Problem] = []
    async with Server() as server:
        for opening in read.openings:
            options = replace(opening.options, access_rules=["deny all"], shutdown_timeout=0)
            try:
                await server.open(opening.name, opening.address, handlers.discard, options)
            except SocketError as error:
                problem = read.source.problem(
                    ("listeners", opening.name, "listen"), f"{error.strerror}.", error.hint, "cannot_bind"
                )
                problems.append(problem)
            except InvalidOption as error:
                problems.append(
                    read.source.problem(("listeners", opening.name), end_once(f"{error}."), None, "bad_option")
                )
    return problems
