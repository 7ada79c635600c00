"""What is in force in a running program, and where each value comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from esockd_cli._settings import write_value
from esockd_cli.config.keys import PATHS, key_of, write_toml
from esockd_cli.config.plan import DEFAULTS, all_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from esockd_cli._opening import Opening
    from esockd_cli.config.hosting import Hosting
    from esockd_cli.config.plan import OpenListener
    from esockd_cli.config.read import Configuration

HAS_POLICY = "proxy_protocol.policy"  # which `proxy_protocol` may give in short


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One value that is in force.

    Attributes:
        listener: The name of the listener; empty for the table `[esockd]`.
        address: Its address.
        key: The key.
        value: The value as it is shown.
        source: "FILE:LINE", "default", or "live change" with what the file has instead.
    """

    listener: str
    address: str
    key: str
    value: str
    source: str

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)


async def show(configuration: Configuration, hosting: Hosting) -> list[Row]:
    """Every value that is in force, but no secret."""
    rows = [*_of_program(configuration)]
    present = {(listener.name, str(listener.address)): listener for listener in hosting.listeners()}
    for opening in configuration.openings:
        if (listener := present.get(opening.key)) is not None and listener.state != "draining":
            rows += [row async for row in _of_listener(configuration, opening, listener)]
    return rows


def _of_program(configuration: Configuration) -> Iterator[Row]:
    for key, default in DEFAULTS.items():
        value = configuration.program.get(key, default)
        source = configuration.source.place_of(("esockd", key)) or "default"
        yield Row(listener="", address="", key=key, value="none" if value is None else str(value), source=source)


async def _of_listener(configuration: Configuration, opening: Opening, listener: OpenListener) -> AsyncIterator[Row]:
    name, address = opening.key

    def row(key: str, value: str, source: str) -> Row:
        return Row(listener=name, address=address, key=key, value=value, source=source)

    def source_of(*path: str) -> str:
        return configuration.source.place_of(("listeners", name, *path)) or "default"

    yield row("handler", opening.handler_text, source_of("handler"))
    yield row("listen", address, source_of("listen"))
    view = await listener.get_options()
    plan = await listener.plan_options(**all_options(opening.options))
    differing = {change.name: change.new for change in plan.changes}
    for option, value in view.items():
        if option not in PATHS:
            continue
        place = source_of(*PATHS[option])
        if option == HAS_POLICY and place == "default":
            place = source_of("proxy_protocol")
        if option in differing:
            where = "by default" if place == "default" else f"in {place}"
            place = f"live change; {write_value(option, differing[option]) or '-'} {where}"
        elif option.partition(".")[0] in differing:
            place = f"live change; not as in {place}"
        yield row(key_of(option), write_value(option, value), place)
    for option, path in PATHS.items():
        if option.startswith("forward.") and (place := source_of(*path)) != "default":
            yield row(key_of(option), write_toml(configuration.source.value_of(("listeners", name, *path))), place)
