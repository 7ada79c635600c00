"""Recordings: what the dashboard saw, as JSON lines, each of which says everything about its moment."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli.top.frame import Frame, Lost

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO, Self

FORMAT: Final = 1
HEADER: Final = {"esockd_recording": FORMAT}
CACHED: Final = 512  # decoded moments: what stepping back and forth looks at again


class Recorder:
    """Writes a recording; its file is new and its owner's own, since it says who connects.

    Attributes:
        failure: Why it does not write any more; "" while it does.

    Raises:
        CommandError: The file exists already, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.failure: str = ""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise CommandError(
                f"{path} exists already.", code="file_exists", status=ExitCode.FAILED, hint="Record to a new file."
            ) from None
        except OSError as error:
            raise _cannot_use(path, error) from error
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._write(HEADER)

    @property
    def note(self) -> str:
        """How it goes, in a few words."""
        return f"recording stopped: {self.failure}" if self.failure else "recording"

    def add(self, seen: Frame | Lost) -> None:
        """Write what was seen; a disk that is full ends the recording and nothing else."""
        if not self.failure:
            self._write({"at": seen.at, ("lost" if isinstance(seen, Lost) else "frame"): seen.as_dict()})

    def _write(self, line: object) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            # Mostly one call a line: what a crash leaves behind are whole lines.
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self.failure = error.strerror or str(error)

    def close(self) -> None:
        """End the recording."""
        self._file.close()


class Recording:
    """Reads a recording, a moment at a time: it may be larger than memory.

    A last line that was cut short is left out.

    Raises:
        CommandError: The file cannot be read, or is no recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with ExitStack() as undo:
            try:
                self._file: BinaryIO = undo.enter_context(path.open("rb"))
                self._offsets = self._find_lines()
            except OSError as error:
                raise _cannot_use(path, error) from error
            undo.pop_all()
        self._cached = lru_cache(CACHED)(self._read)

    def _find_lines(self) -> list[int]:
        try:
            header = json.loads(self._file.readline(1_000))
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("esockd_recording") != FORMAT:
            raise CommandError(
                f"{self._path} is no recording that this version reads.",
                code="bad_recording",
                status=ExitCode.FAILED,
                hint="Make one: esockd top --record FILE",
            )
        offsets, offset = [], self._file.tell()
        for line in self._file:
            if line.endswith(b"\n"):
                offsets.append(offset)
            offset += len(line)
        if not offsets:
            raise CommandError(f"{self._path} has nothing in it.", code="bad_recording", status=ExitCode.FAILED)
        return offsets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def moment(self, index: int) -> Frame | Lost:
        """What was seen at one moment.

        Raises:
            CommandError: Its line is broken.
        """
        return self._cached(index)

    def _read(self, index: int) -> Frame | Lost:
        self._file.seek(self._offsets[index])
        try:
            line = json.loads(self._file.readline())
            return Lost.from_dict(line["lost"]) if "lost" in line else Frame.from_dict(line["frame"])
        except json.JSONDecodeError:
            raise self._broken(index, "it is no JSON") from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken(index, str(error)) from error

    def _broken(self, index: int, reason: str) -> CommandError:
        return CommandError(
            f"{self._path}: line {index + 2} is broken: {reason}.", code="bad_recording", status=ExitCode.FAILED
        )


def _cannot_use(path: Path, error: OSError) -> CommandError:
    return CommandError(f"cannot use {path}: {error.strerror}.", code="bad_file", status=ExitCode.FAILED)
