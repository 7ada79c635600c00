"""What is wrong with a configuration file: each problem with its line, its key and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from esockd_cli._errors import CommandError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes:
        file: The file as it was named.
        line: The line, from 1; None where it is about the whole file.
        key: The path of the key, such as "listeners.echo.max_connections"; empty where it is about the whole file.
        code: A word for scripts.
        message: What is wrong, in one sentence; it shows no secret.
        hint: What to do about it; None when the message says so.
    """

    file: str
    line: int | None
    key: str
    code: str
    message: str
    hint: str | None = None

    @property
    def place(self) -> str:
        """File and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.message}{f' {self.hint}' if self.hint else ''}"

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)

    def error(self, status: ExitCode = ExitCode.FAILED) -> CommandError:
        """The problem as the failure of a command."""
        return CommandError(f"{self.place}: {self.message}", code=self.code, status=status, hint=self.hint)


class BadConfig(Exception):  # noqa: N818 (an answer)
    """A file that cannot be used.

    Attributes:
        problems: What is wrong with it, in the order of its lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: list[Problem] = sorted(problems, key=lambda problem: (problem.line or 0, problem.key))
        super().__init__(" ".join(map(str, self.problems)))
