"""Pre-shared keys by identity (RFC 4279), in a mapping, in a file, or known to a function of the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from esockd_core._errors import InvalidOption
from esockd_core._options.files import check_file

FindKey: TypeAlias = Callable[[str], bytes | None]
PskSource: TypeAlias = Mapping[str, bytes] | FindKey | str | Path
MAX_IDENTITY_BYTES: Final = 128  # each side has to take as many (RFC 4279 section 5.3), and older OpenSSL takes no more
MAX_KEY_BYTES: Final = 256  # OpenSSL's bound


def key_finder(option: str, source: PskSource) -> FindKey:
    """A function that finds the key of an identity, or None. A file is read now.

    Raises:
        InvalidOption: If an identity or key in it is not allowed, or the file cannot be read.
    """
    if callable(source):
        return source
    if isinstance(source, str | Path):
        return _read_file(option, Path(source)).get
    keys = dict(source)
    for identity, key in keys.items():
        if (reason := _why_not(identity, key)) is not None:
            raise InvalidOption(reason, option=option)
    return keys.get


def _read_file(option: str, path: Path) -> dict[str, bytes]:
    """Read lines of identity, colon and key in hexadecimal, as Mosquitto and stunnel do."""
    check_file(option, path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidOption(f"it cannot be read: {error.strerror}", option=option, value=str(path)) from error
    except UnicodeDecodeError as error:
        raise InvalidOption("it is not text in UTF-8", option=option, value=str(path)) from error
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        identity, _, digits = line.rpartition(":")  # an identity may have a colon in it
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            reason = f"line {number} is not an identity, a colon and a key in hexadecimal"
            raise InvalidOption(reason, option=option, value=str(path)) from None  # the digits are a secret
        if (wrong := f"{identity!r} has two keys" if identity in keys else _why_not(identity, key)) is not None:
            raise InvalidOption(f"line {number}: {wrong}", option=option, value=str(path))
        keys[identity] = key
    if not keys:
        raise InvalidOption("it holds no keys", option=option, value=str(path))
    return keys


def _why_not(identity: object, key: object) -> str | None:
    if not isinstance(identity, str) or not 1 <= len(identity.encode()) <= MAX_IDENTITY_BYTES or "\0" in identity:
        return f"an identity takes a text of 1 to {MAX_IDENTITY_BYTES} bytes in UTF-8 (RFC 4279 section 5.3)"
    if not isinstance(key, bytes) or not 1 <= len(key) <= MAX_KEY_BYTES:
        return f"the key of {identity!r} takes 1 to {MAX_KEY_BYTES} bytes"
    return None
