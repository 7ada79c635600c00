"""Why a text is not an address or a network: what its author most likely meant, and what to write instead."""

from __future__ import annotations

import re
from typing import Final

NO_PORT: Final = "a port has no place in a rule, which judges addresses alone"

_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<v4>\d+(?:\.\d+){3}))(?P<prefix>/\d+)?(?P<port>:\d*)?", re.ASCII | re.IGNORECASE
)

# Each pattern, the reason, and the hint.
_NO_ADDRESS: Final = (
    (re.compile(r"\s"), "a network has no blanks in it", None),
    (re.compile(r"%"), "a rule cannot have a zone id", "Leave it out: a rule matches its addresses in every zone."),
    (re.compile(r":"), "that is not an IPv6 address", "Write one such as 2001:db8::1 or 2001:db8::/32."),
    (
        re.compile(r"\A\d+(\.\d+){0,2}\Z", re.ASCII),
        "an IPv4 address has four parts",
        "Write 10.0.0.0/8 rather than 10/8.",
    ),
    (
        re.compile(r"\A(\d+\.)*0\d+(\.\d+)*\Z", re.ASCII),
        "an IPv4 address has no leading zeros",
        "Leave them out: some programs read such a number as octal.",
    ),
    (re.compile(r"\A\d+(\.\d+){3}\Z", re.ASCII), "each part of an IPv4 address is 0 to 255", None),
    (
        re.compile(r"\A[\w-]+(\.[\w-]+)*\.?\Z", re.ASCII),
        "rules take addresses, not names",
        "Write one such as 10.0.0.0/8 or 2001:db8::/32; names are not looked up.",
    ),
    (re.compile(r""), "that is not an IPv4 or IPv6 address", "Write one such as 10.0.0.0/8 or 2001:db8::/32."),
)

_NO_PREFIX_LENGTH: Final = (
    (re.compile(r"\A\d+(\.\d+){3}\Z", re.ASCII), "Write a number such as 24, not a mask."),
    (re.compile(r"\s"), "Write nothing after it, and separate rules by semicolons or lines."),
)


def without_port(text: str) -> str | None:
    """The address or network in a text such as `10.0.0.1:80` or `[::1]`; None when it has no port and no brackets."""
    found = _PORT.fullmatch(text)
    if not found or not (found["v6"] or found["port"]):
        return None
    return f"{found['v6'] or found['v4']}{found['prefix'] or ''}"


def why_no_network(text: str) -> tuple[str, str | None]:
    """The reason and the hint for a text whose address is not valid."""
    if plain := without_port(text):
        return NO_PORT, f"Write {plain}."
    address = text.partition("/")[0]
    return next((reason, hint) for pattern, reason, hint in _NO_ADDRESS if pattern.search(address))


def why_no_prefix_length(digits: str) -> str | None:
    """The hint for a prefix length that is not a number."""
    return next((hint for pattern, hint in _NO_PREFIX_LENGTH if pattern.search(digits)), None)


def why_no_peer(text: str) -> tuple[str, str]:
    """The reason and the hint for a text that is not the address of a peer."""
    if plain := without_port(text):
        return "a port is not part of an address", f"Give {plain!r}, or the tuple of host and port as the socket does."
    hint = "Leave out brackets and blanks; names are not looked up."
    return "it takes an IPv4 or IPv6 address, or unix: for the peer of a Unix socket", hint
