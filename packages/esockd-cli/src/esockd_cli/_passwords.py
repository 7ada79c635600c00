"""The password of a private key: never an argument, which every user of the machine could see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from esockd_cli._bad_options import PASSWORD_VARIABLE
from esockd_cli._errors import UsageError

MAX_PASSWORD_BYTES: Final = 1023  # what ssl.SSLContext.load_cert_chain takes


def read_password(file: str | None, called: str = "--key-password-file") -> bytes | None:
    """The first line of a file, otherwise what the environment has.

    Args:
        file: The file; None for the environment.
        called: How the file is called where it was given.

    Raises:
        UsageError: The file cannot be read, or its first line is empty.
    """
    if file is None:
        return os.environb.get(PASSWORD_VARIABLE.encode()) or None
    try:
        with Path(file).open("rb") as lines:  # a pipe will do, and `<(command)` of a shell
            password = lines.readline(MAX_PASSWORD_BYTES + 2).rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"{called} {file}: {error.strerror}.", code="bad_tls") from error
    if not password:
        raise UsageError(f"{called} {file}: its first line is empty.", code="bad_tls")
    return password
