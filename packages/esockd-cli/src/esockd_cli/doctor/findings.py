"""What a check has to say: a finding with what mends it, or why nothing could be seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_cli.doctor.patient import Patient

Level: TypeAlias = Literal["error", "warning"]
"""An error hurts clients now or lets in the wrong ones; a warning does so under load, or is mostly a mistake."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong or doubtful.

    Attributes:
        level: How bad it is.
        subject: The listener, instance or machine that it is about.
        seen: What was seen, in one sentence with its numbers.
        why: Why it matters, in one sentence.
        mend: The command that mends it, or the line to write.
    """

    level: Level
    subject: str
    seen: str
    why: str
    mend: str

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NotSeen:
    """Something that could not be looked at.

    Attributes:
        subject: The listener, instance or machine that it is about.
        reason: Why not.
    """

    subject: str
    reason: str

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Attributes:
        name: A word for scripts.
        text: When there is a finding, in one sentence.
        look: Yields what it finds. A `CannotSee` that it raises ends it.
    """

    name: str
    text: str
    look: Callable[[Patient], Iterator[Finding | NotSeen]]
