"""What is wrong with an option, in the words of the command line: flags where the library has its own names."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from esockd_cli._errors import UsageError, bad_value
from esockd_core import OPTIONS

if TYPE_CHECKING:
    from esockd_core import InvalidOption, Option

PASSWORD_VARIABLE: Final = "ESOCKD_KEY_PASSWORD"  # noqa: S105 (its name, no password)
# What to do is told in flags where an option was not given at all.
MISSING: Final = {
    "tls.keyfile": "Give --key FILE as well.",
    "tls.password": f"Give --key-password-file FILE, or set {PASSWORD_VARIABLE}.",
}
GROUPED: Final = ("tcp", "udp")  # options without flags of their own
CODES: Final = {"tls": "bad_tls", "dtls": "bad_tls", "forward.tls": "bad_tls"}


def bad_option(error: InvalidOption, group: str = "") -> UsageError:
    """Tell of a bad option.

    Args:
        error: What is wrong.
        group: What the error's options belong to, where they are not a listener's: "forward".
    """
    name = ".".join(filter(None, (group, error.option)))
    if name.startswith("dtls.") and getattr(OPTIONS.get(name), "flag", "") is None:
        name = name[1:]  # the flag is that of TLS
    option = OPTIONS.get(name)
    is_missing = error.value is None and name in MISSING
    subject = name.rpartition(".")[2] if option is None else _as_typed(option, error.value)
    if option is not None and option.kind.placeholder == "CIDR":
        return bad_value(error, f'bad CIDR "{error.value}"', code="bad_cidr")
    message = f"{subject}: {error.reason.removesuffix('.')}." if subject else f"{error.reason.removesuffix('.')}."
    hint = MISSING[name] if is_missing else error.hint
    return UsageError(message, code=CODES.get(option.group if option else "", "bad_option"), hint=hint)


def _as_typed(option: Option, value: object) -> str:
    """The option and its value as they are typed."""
    flag = option.flag or (f"--{option.group}-option {option.field}" if option.group in GROUPED else option.field)
    if value is None or value is ...:
        return flag
    text = value if isinstance(value, str) else option.kind.format(value)
    return f"{flag} {shlex.quote(text)}" if option.flag else f"{flag}={text}"
