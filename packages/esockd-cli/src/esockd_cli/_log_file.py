"""A file in the place of stderr, for whatever this process and its workers write there."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from esockd_cli._account import acting_as
from esockd_cli._errors import CommandError, ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core.privileges import Account

logger: logging.Logger = logging.getLogger("esockd_cli")

STDERR: Final = 2
FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
MODE: Final = 0o640  # logs say who connects


def read_log_file(path: str | None, log_to: str) -> str | None:
    """The file to log to, whole, so that it can be opened again from anywhere.

    Args:
        path: As it was given; None for none.
        log_to: Where else logs go.

    Raises:
        UsageError: They go to two places.
    """
    if path is not None and log_to != "stderr":
        raise UsageError(f"--log-file does nothing with --log-to {log_to}.", hint="Choose one of them.")
    return None if path is None else str(Path(path).absolute())


@contextmanager
def stderr_in_file(path: str | None, account: Account | None = None) -> Iterator[None]:
    """Have stderr be a file for the duration of a block.

    Args:
        path: The file; None leaves stderr where it is.
        account: The user that will serve, and opens the file, so that root follows no link that this user has made and
            an upgrade can open it again; None for the user of this process.

    Raises:
        CommandError: It cannot be written.
    """
    if path is None:
        yield
        return
    before = os.dup(STDERR)
    try:
        try:
            with acting_as(account):
                open_as_stderr(path)
        except OSError as error:
            raise _cannot_log(path, account, error) from error
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os.dup2(before, STDERR)
        os.close(before)


def _cannot_log(path: str, account: Account | None, error: OSError) -> CommandError:
    why, hint = f"cannot write the log file {path}: {error.strerror}.", None
    if isinstance(error, PermissionError) and account is not None and not account.is_current:
        why = f"{account.name} {why}"
        hint = f"Give that user the file: install -o {account.uid} -g {account.gid} -m 640 /dev/null {quote(path)}"
    return CommandError(why, code="cannot_log", status=ExitCode.CANNOT_START, hint=hint)


def open_as_stderr(path: str) -> None:
    """Write to a file from now on, which is made if need be. Where that fails, everything stays as it is.

    Raises:
        OSError: It cannot be written, or is a pipe that nobody reads, which would be waited for without end.
    """
    try:
        descriptor = os.open(path, FLAGS, MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a pipe that nobody reads, or a socket, not a file", path) from error
        raise
    try:
        os.write(descriptor, b"")  # /dev/full refuses even that
        os.set_blocking(descriptor, True)
        os.dup2(descriptor, STDERR)
    finally:
        os.close(descriptor)


def reopen_log_file(path: str | None, why: str) -> None:
    """Write to the file that has the name now, as after a rotation; None does nothing.

    Args:
        path: The file.
        why: Who asked.
    """
    if path is None:
        return
    try:
        open_as_stderr(path)
    except OSError as error:
        logger.error("%s: the log file stays the one before: %s: %s", why, path, error.strerror)  # noqa: TRY400


class LogFileHandler(logging.StreamHandler[Any]):
    """Writes to stderr, and notices when another file has the name of the one behind it.

    Processes that nobody can tell of that, as workers, follow at their next line.

    Args:
        path: The file.
        account: The user that will serve: until then root stays with the file it has. None for that of this process.
    """

    def __init__(self, path: str, account: Account | None = None) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._account = account

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if self._has_moved() and (self._account is None or self._account.is_current):
            with suppress(OSError):
                open_as_stderr(self._path)
        super().emit(record)

    def _has_moved(self) -> bool:
        try:
            named = Path(self._path).stat()
        except OSError:
            return True
        held = os.fstat(STDERR)
        return (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)
