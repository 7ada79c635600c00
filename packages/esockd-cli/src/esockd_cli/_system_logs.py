"""The logs of the system: syslog, and journald with its fields."""

from __future__ import annotations

import logging
import os
import socket
from abc import abstractmethod
from typing import Final, Literal, TypeAlias

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._log_lines import logfmt_value
from esockd_core import LOG_FIELDS

SystemLog: TypeAlias = Literal["syslog", "journald"]

SYSLOG: Final = "/dev/log"
JOURNAL: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "esockd"
DAEMON: Final = 3 << 3  # the facility, RFC 5424 section 6.2.1
MAX_BYTES: Final = 65_536  # of one line; sockets of the system take more
PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)


class SystemLogHandler(logging.Handler):
    """Sends each record as a datagram, and never waits: what the system does not take is counted, and said later.

    Args:
        path: The socket of the system's log.

    Raises:
        CommandError: Nobody listens there.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._lost = 0
        self._socket: socket.socket | None = None
        try:
            self._socket = self._connected()
        except OSError as error:
            why = f"cannot log to {path}: {error.strerror}."
            hint = "Leave --log-to away to log to stderr."
            raise CommandError(why, code="cannot_log", status=ExitCode.CANNOT_START, hint=hint) from error

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            if self._lost and self._send(self.encode_lost(self._lost)):
                self._lost = 0
            if self._lost or not self._send(self.encode(record)):
                self._lost += 1
        except Exception:  # noqa: BLE001 - of a message that cannot be formatted
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        super().close()

    @abstractmethod
    def encode(self, record: logging.LogRecord) -> bytes:
        """The datagram of a record."""

    def encode_lost(self, lost: int) -> bytes:
        """The datagram that says how many lines the system did not take."""
        text = f"{lost} lines of logs were lost: the log of the system did not take them"
        return self.encode(logging.LogRecord("esockd_cli", logging.WARNING, __file__, 0, text, None, None))

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _send(self, datagram: bytes) -> bool:
        """Send, on a new socket if the log of the system has started again; say whether it was taken."""
        for _ in range(2):
            try:
                if self._socket is None:
                    self._socket = self._connected()
                self._socket.send(datagram)
            except BlockingIOError:
                return False
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None
            else:
                return True
        return False


class SyslogHandler(SystemLogHandler):
    """Speaks to syslog as syslog(3) does: a line each, formatted as everywhere else."""

    def encode(self, record: logging.LogRecord) -> bytes:
        """The datagram of a record."""
        text = self.format(record).replace("\n", "\\n")
        head = f"<{DAEMON | priority_of(record)}>{IDENTIFIER}[{os.getpid()}]: "
        return f"{head}{text}".encode(errors="replace")[:MAX_BYTES]


class JournalHandler(SystemLogHandler):
    """Speaks to journald by its native protocol: what a line is about are fields that journalctl finds.

    https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
    """

    def encode(self, record: logging.LogRecord) -> bytes:
        """The datagram of a record."""
        fields: dict[str, object] = {
            "MESSAGE": record.getMessage(),
            "PRIORITY": priority_of(record),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "LOGGER": record.name,
        }
        for name in LOG_FIELDS:
            if (value := getattr(record, name, None)) is not None:
                fields[f"ESOCKD_{name.upper()}"] = value if isinstance(value, str) else logfmt_value(value)
        if record.exc_info and record.exc_info[1] is not None:
            fields["EXCEPTION"] = logging.Formatter().formatException(record.exc_info)
        return b"".join(_field(name, str(value)) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="replace")[: MAX_BYTES // 2]
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def priority_of(record: logging.LogRecord) -> int:
    """The severity of a record as syslog counts it."""
    return next(priority for level, priority in PRIORITIES if record.levelno >= level)
