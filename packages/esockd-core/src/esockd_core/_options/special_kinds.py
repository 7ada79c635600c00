"""Kinds of values that only a few options take: rates, networks, files, and objects of the program."""

from __future__ import annotations

import ipaddress
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from esockd_cidr import AccessList, CidrError
from esockd_core._checks import is_whole
from esockd_core._errors import InvalidOption
from esockd_core._options.files import check_file, read_regular_file
from esockd_core._options.kinds import NO_BOUND, SWITCH, Choice, Kind
from esockd_ratelimit import InvalidRate, Rate

MODE: Final = re.compile(r"(0o?)?[0-7]{1,3}")
MAX_ID: Final = 2**32 - 2  # 2**32 - 1 is the -1 that chown(2) reads as "as it is"
MOST_DATAGRAM_BYTES: Final = 65_507  # over IPv4: 65,535 bytes without the headers of IP and UDP (RFC 768)
MAX_FAREWELL_BYTES: Final = 1 << 20  # in a file; all of it is in memory
MAX_ALPN_BYTES: Final = 255  # of one name (RFC 7301 section 3.1)


class Converted(Kind):
    """A kind of values that another package reads and checks."""

    @abstractmethod
    def convert(self, value: Any) -> Any:
        """Convert a value other than None to what the listener uses.

        Raises:
            CidrError: If the value is not allowed.
            InvalidRate: If the value is not allowed.
            TypeError: If the value has another type.
        """

    def holds(self, value: Any) -> bool:
        try:
            self.convert(value)
        except (CidrError, InvalidRate, TypeError):
            return False
        return True

    def check(self, option: str, value: object) -> None:
        if value is None:
            super().check(option, value)
            return
        try:
            self.convert(value)
        except (CidrError, InvalidRate) as error:
            raise InvalidOption(error.reason, option=option, value=error.value, hint=error.hint) from error
        except TypeError as error:
            raise self._refusal(option, value, self.takes, "None") from error

    def parse(self, option: str, text: str) -> Any:
        if self.is_optional and text.strip().lower() in NO_BOUND:
            return None
        self.check(option, [text] if self.is_list else text)
        return text


class ConnectionRate(Converted):
    """Connections in a time, as `esockd_ratelimit.Rate` reads them."""

    unit = "connections a second"
    PLACEHOLDER = "RATE"
    TAKES = 'a rate such as "500/s" or "500/s burst 1000", a number a second or a Rate'

    def convert(self, value: Any) -> Rate:
        return Rate.parse(value) if isinstance(value, str) else Rate.of(value)


class PacketRate(ConnectionRate):
    """Datagrams in a time, as `esockd_ratelimit.Rate` reads them."""

    unit = "datagrams a second"


class Exchange(Kind):
    """A request and the reply to it."""

    PLACEHOLDER = "REQUEST=REPLY"
    TAKES = (
        f'a pair of bytes such as (b"ping", b"pong"), the first not empty, each at most {MOST_DATAGRAM_BYTES:,} bytes'
    )
    TAKES_TEXT = f"two texts such as ping=pong, the first not empty, each at most {MOST_DATAGRAM_BYTES:,} bytes"

    def holds(self, value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) == 2
            and all(isinstance(each, bytes) and len(each) <= MOST_DATAGRAM_BYTES for each in value)
            and value[0] != b""
        )

    def read(self, text: str) -> tuple[bytes, bytes]:
        request, equals, reply = text.encode(errors="surrogateescape").partition(b"=")
        if not equals:
            raise ValueError
        return request, reply

    def write(self, value: tuple[bytes, bytes]) -> str:
        return b"=".join(value).decode(errors="surrogateescape")


class Groups(Kind):
    """Multicast groups, each on the interface that the system chooses or on a named one."""

    is_list = True
    PLACEHOLDER = "GROUP"
    TAKES = 'multicast groups such as ("239.1.2.3", "ff15::7%eth0")'
    TAKES_TEXT = "a multicast group such as 239.1.2.3 or ff15::7%eth0"

    def holds(self, value: Any) -> bool:
        return isinstance(value, tuple) and all(isinstance(each, str) and _is_multicast(each) for each in value)

    def parse(self, option: str, text: str) -> Any:
        if not self.holds((text,)):
            raise self._refusal(option, text, self.takes_text, "none")
        return text


def _is_multicast(group: str) -> bool:
    try:
        return ipaddress.ip_address(group.partition("%")[0]).is_multicast
    except ValueError:
        return False


class Rules(Converted):
    """Rules as `esockd_cidr.AccessList` reads them."""

    is_list = True
    PLACEHOLDER = "RULE"
    TAKES = 'rules such as ["deny 10.0.0.1", "allow 10.0.0.0/8", "deny all"] or an AccessList'

    def convert(self, value: Any) -> AccessList:
        return AccessList(value.rules, value.default) if isinstance(value, AccessList) else AccessList(value)


class Networks(Converted):
    """The addresses and networks that are let in; all others are kept out."""

    is_list = True
    PLACEHOLDER = "CIDR"
    TAKES = 'addresses and networks such as ["10.0.0.0/8", "192.0.2.1"], or an AccessList'

    def convert(self, value: Any) -> AccessList:
        if isinstance(value, AccessList):
            return AccessList(value.rules, value.default)
        if isinstance(value, str | bytes):
            raise TypeError
        return AccessList([("allow", network) for network in value], "deny")


class Farewell(Kind):
    """How a refused socket ends."""

    TAKES = '"fin", "rst" or bytes to send'
    TAKES_TEXT = "fin, rst, static:TEXT or static:@FILE"
    PLACEHOLDER = "fin|rst|static:TEXT"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bytes) or (isinstance(value, str) and value in ("fin", "rst"))

    def read(self, text: str) -> str | bytes:
        kind, colon, content = text.partition(":")
        if not colon:
            return text
        if kind != "static":
            raise ValueError
        if content.startswith("@"):
            return read_regular_file(content[1:], MAX_FAREWELL_BYTES)
        return content.encode(errors="surrogateescape")

    def parse(self, option: str, text: str) -> Any:
        try:
            return super().parse(option, text)
        except OSError as error:
            raise InvalidOption(f"cannot read the file: {error.strerror}", option=option, value=text) from error

    def write(self, value: str | bytes) -> str:
        return value if isinstance(value, str) else f"static:{value.decode(errors='surrogateescape')}"


@dataclass(frozen=True, kw_only=True)
class HeaderPolicy(Choice):
    """Whether to look for PROXY headers: a switch, or a policy as the short form of the nested options."""

    words: tuple[str, ...] = ("on", "off", "require", "use", "ignore", "reject")

    @property
    def takes(self) -> str:
        return 'True, False, "require", "use", "ignore", "reject" or a ProxyOptions'

    def read(self, text: str) -> bool | str:
        return SWITCH.get(text.lower(), text)

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool) or super().holds(value)

    def write(self, value: Any) -> str:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


class File(Kind):
    """The path of a PEM file that can be read."""

    PLACEHOLDER = "FILE"
    TAKES = "the path of a PEM file"

    def holds(self, value: Any) -> bool:
        return isinstance(value, str | Path)

    def check(self, option: str, value: object) -> None:
        super().check(option, value)
        if isinstance(value, str | Path):
            check_file(option, value)


class Keys(Kind):
    """Pre-shared keys. A refusal does not show them."""

    PLACEHOLDER = "FILE"
    TAKES = "a mapping of identities to keys, a function that finds the key of one, or the path of a file of them"
    TAKES_TEXT = "the path of a file"

    def holds(self, value: Any) -> bool:
        return callable(value) or (isinstance(value, str | Path | Mapping) and value != "")

    def check(self, option: str, value: object) -> None:
        if value is not None and not self.holds(value):
            raise self._refusal(option, ..., self.takes, "None")


class ProtocolNames(Kind):
    """The names of application protocols (RFC 7301)."""

    is_list = True
    PLACEHOLDER = "PROTO"
    TAKES = f'names of 1 to {MAX_ALPN_BYTES} ASCII characters, such as ("h2", "http/1.1") (RFC 7301 section 3.1)'
    TAKES_TEXT = f"a name of 1 to {MAX_ALPN_BYTES} ASCII characters (RFC 7301 section 3.1)"

    def holds(self, value: Any) -> bool:
        return isinstance(value, tuple) and all(
            isinstance(name, str) and name.isascii() and 1 <= len(name) <= MAX_ALPN_BYTES for name in value
        )

    def parse(self, option: str, text: str) -> Any:
        if not self.holds((text,)):
            raise self._refusal(option, text, self.takes_text, "none")
        return text


class Mode(Kind):
    """Permission bits, written in octal as chmod(1) does."""

    PLACEHOLDER = "MODE"
    TAKES = "permission bits such as 0o660, 0 to 0o777"
    TAKES_TEXT = "permission bits in octal such as 660, 0 to 777"

    def holds(self, value: Any) -> bool:
        return is_whole(value) and 0 <= value <= 0o777

    def read(self, text: str) -> int:
        if not MODE.fullmatch(text):
            raise ValueError
        return int(text.removeprefix("0o"), 8)

    def write(self, value: int) -> str:
        return f"{value:o}"


class Account(Kind):
    """The name or number of a user or group."""

    PLACEHOLDER = "NAME"
    TAKES = f"a name, or a number from 0 to {MAX_ID}"

    def holds(self, value: Any) -> bool:
        return value != "" if isinstance(value, str) else is_whole(value) and 0 <= value <= MAX_ID

    def read(self, text: str) -> str | int:
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else text


class Text(Kind):
    """A text that is not empty."""

    PLACEHOLDER = "TEXT"
    TAKES = "a text that is not empty"

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value != ""


@dataclass(frozen=True)
class OfProgram(Kind):
    """A value that only a program can give; the class of the options checks it.

    Attributes:
        what: What it is, in words.
    """

    what: str
    is_optional: bool = field(default=True, kw_only=True)
    is_text = False
    PLACEHOLDER = "OBJECT"

    @property
    def takes(self) -> str:
        return self.what

    def holds(self, value: Any) -> bool:
        del value
        return True
