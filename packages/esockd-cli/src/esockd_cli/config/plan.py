"""What a new configuration changes: listeners that are opened, drained or changed, and what each change takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from esockd_cli._settings import write_value
from esockd_cli.config.collisions import overlap
from esockd_cli.config.keys import PROGRAM_KEYS, key_of
from esockd_core import Effect, ListenerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from esockd_cli._opening import Opening
    from esockd_cli.config.read import Configuration
    from esockd_core import Listener, OptionPlan
    from esockd_core.workers import SharedControl

EFFECTS: Final = {Effect.LIVE: "live", Effect.NEW_CONNECTIONS: "new connections", Effect.REOPEN: "new sockets"}
DEFAULTS: Final[dict[str, object]] = {
    **dict.fromkeys(PROGRAM_KEYS),
    "loop": "auto",
    "app_dir": ".",
    "no_control": False,
    "log_format": "auto",
    "log_to": "stderr",
}
WIDEST: Final = 60  # characters of a value that a plan shows

OpenListener: TypeAlias = "Listener | SharedControl"
"""An open listener, of this process or of its workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a plan.

    Attributes:
        listener: The name of the listener; empty for a key of `[esockd]`.
        address: Its address.
        key: The key that changes; empty where the listener is opened or drained.
        old: What was in force.
        new: What will be in force.
        effect: What it takes: "live", "new connections", "new sockets", "opened", "drained" or "restart".
    """

    listener: str
    address: str
    key: str
    old: str | None
    new: str | None
    effect: str

    def __str__(self) -> str:
        where = f"{self.listener} {self.address}".strip() or "[esockd]"
        if not self.key:
            return f"{where}: {self.effect}"
        change = "" if self.old == self.new else f" {_cut(self.old)} -> {_cut(self.new)}"
        return f"{where}: {self.key}{change or ' is read again'} ({self.effect})"

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)


def _cut(text: str | None) -> str:
    shown = text or "-"
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 3]}..."


@dataclass(frozen=True, slots=True)
class Kept:
    """A listener that stays.

    Attributes:
        listener: The listener.
        opening: What it is to be.
        plan: The options that change.
        before: What it was to be before; None if the file did not have it.
        has_new_handler: Whether its handler changes.
    """

    listener: OpenListener
    opening: Opening
    plan: OptionPlan
    before: Opening | None
    has_new_handler: bool

    @property
    def is_changed(self) -> bool:
        """Whether anything of it changes."""
        return self.has_new_handler or bool(self.plan.changes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a new configuration changes.

    Attributes:
        new: The new configuration.
        restart: Keys of `[esockd]` that differ, which takes a restart.
        opened: Listeners to open.
        kept: Listeners that stay, changed or not.
        drained: Listeners that are not in the file any more.
    """

    new: Configuration
    restart: tuple[Step, ...]
    opened: tuple[Opening, ...]
    kept: tuple[Kept, ...]
    drained: tuple[OpenListener, ...]

    def steps(self) -> list[Step]:
        """The plan line by line."""
        return [
            *self.restart,
            *(_step(opening.name, str(opening.address), "opened") for opening in self.opened),
            *(step for kept in self.kept for step in _steps_of(kept)),
            *(_step(listener.name, str(listener.address), "drained") for listener in self.drained),
        ]

    @property
    def hint(self) -> str | None:
        """What puts it in force where that takes no restart."""
        if [step.key for step in self.restart] == ["workers"]:
            return "esockd upgrade changes the number of workers, unless --workers gives it, and no client is lost."
        return None

    def in_the_way(self, opening: Opening) -> list[OpenListener]:
        """The listeners to drain whose address a new one takes over."""
        return [listener for listener in self.drained if overlap(listener.address, opening.address)]


def _step(listener: str, address: str, effect: str) -> Step:
    return Step(listener=listener, address=address, key="", old=None, new=None, effect=effect)


async def make_plan(listeners: Sequence[OpenListener], old: Configuration, new: Configuration) -> Plan:
    """Compare what is in force with a new configuration.

    Args:
        listeners: The open listeners.
        old: The configuration that was put in force before.
        new: The new one.

    Raises:
        InvalidOption: If an option does not apply to a listener.
        ListenerClosed: If a listener ends meanwhile.
    """
    present = {(listener.name, str(listener.address)): listener for listener in listeners}
    before = {opening.key: opening for opening in old.openings}
    kept = [
        await _compare(present[opening.key], before.get(opening.key), opening)
        for opening in new.openings
        if opening.key in present
    ]
    wanted = {opening.key for opening in new.openings}
    return Plan(
        new,
        tuple(_restart(old.program, new.program)),
        tuple(opening for opening in new.openings if opening.key not in present),
        tuple(kept),
        tuple(listener for key, listener in present.items() if key not in wanted),
    )


async def _compare(listener: OpenListener, before: Opening | None, opening: Opening) -> Kept:
    if before is not None and before.tls_mark == opening.tls_mark:
        # The same files with the same content: what was read before will do, and nothing changes.
        old = before.options
        opening = replace(opening, options=replace(opening.options, tls=old.tls, dtls=old.dtls))
    is_same = before is not None and before.handler_mark == opening.handler_mark
    plan = await listener.plan_options(**all_options(opening.options))
    return Kept(listener, opening, plan, before, not is_same)


def all_options(options: ListenerOptions) -> Any:
    """Every option by its name, in place of those in force."""
    return {field.name: getattr(options, field.name) for field in fields(ListenerOptions)}


def _restart(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Step]:
    for key, default in DEFAULTS.items():
        before, after = old.get(key, default), new.get(key, default)
        if before != after:
            texts = [None if each is None else str(each) for each in (before, after)]
            yield Step(listener="", address="", key=key, old=texts[0], new=texts[1], effect="restart")


def _steps_of(kept: Kept) -> Iterator[Step]:
    name, address = kept.opening.name, str(kept.opening.address)
    if kept.has_new_handler:
        effect = EFFECTS[Effect.NEW_CONNECTIONS]
        old_text = kept.before.handler_text if kept.before else None
        new_text = kept.opening.handler_text
        yield Step(listener=name, address=address, key="handler", old=old_text, new=new_text, effect=effect)
    for change in kept.plan.changes:
        for key, old, new in _pairs(change.name, change.old, change.new):
            yield Step(listener=name, address=address, key=key, old=old, new=new, effect=EFFECTS[change.effect])


def _pairs(name: str, old: Any, new: Any) -> Iterator[tuple[str, str | None, str | None]]:
    """The keys of one change: a group that is exchanged as a whole has several."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield key_of(name), _text(name, old), _text(name, new)
        return
    parts = [f"{name}.{part}" for part in {**old, **new}]
    differing = [part for part in parts if old.get(part[len(name) + 1 :]) != new.get(part[len(name) + 1 :])]
    for part in differing:
        field = part[len(name) + 1 :]
        yield key_of(part), _text(part, old.get(field)), _text(part, new.get(field))
    if not differing:
        yield "certificate" if name in ("tls", "dtls") else key_of(name), None, None


def _text(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key_of(f'{name}.{part}')}={write_value(f'{name}.{part}', each)}" for part, each in value.items()
        )
    return write_value(name, value)
