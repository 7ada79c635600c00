"""PROXY headers as they are typed, pasted and shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from esockd_cli._errors import UsageError, did_you_mean
from esockd_proxyproto import Endpoint, Tlv, TlvType, UnixEndpoint

if TYPE_CHECKING:
    from esockd_proxyproto import ProxyHeader

V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
ENDPOINT: Final = re.compile(r"\[([^]]+)\]:(\d+)|([^:]+):(\d+)")
# A line that xxd, hexdump -C or tcpdump -x begins with its offset.
OFFSET: Final = re.compile(
    r"\s*(?:(?:0x[0-9a-f]{4,8}|[0-9a-f]{7,8}):\s+|[0-9a-f]{7,8}\s{2,})(?=[0-9a-f]{2})", re.IGNORECASE
)
COLUMN: Final = re.compile(r"(?:[0-9a-f]{2} ){0,7}[0-9a-f]{2}", re.IGNORECASE)


def read_endpoint(text: str) -> Endpoint | UnixEndpoint:
    """Read `ADDRESS:PORT`, `[ADDRESS]:PORT` or `unix:/path`.

    Raises:
        UsageError: It is none of these.
    """
    if text.startswith("unix:"):
        return UnixEndpoint(text.removeprefix("unix:"))
    found = ENDPOINT.fullmatch(text)
    if found is None:
        hint = f"Write [{text.rpartition(':')[0]}]:{text.rpartition(':')[2]}" if text.count(":") > 1 else None
        raise UsageError(
            f'bad address "{text}": it takes ADDRESS:PORT, [ADDRESS]:PORT or unix:/path.', code="bad_address", hint=hint
        )
    return Endpoint(found[1] or found[3], int(found[2] or found[4]))


def read_tlv(text: str) -> Tlv:
    """Read `TYPE=VALUE`, with a type's name or number, and a text or `hex:` bytes.

    Raises:
        UsageError: It is not one.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f'--tlv: "{text}" has no "=".', hint="Write TYPE=VALUE, such as authority=example.org.")
    known = {each.name.lower(): each for each in TlvType}
    word = name.strip().lower().replace("-", "_")
    try:
        kind = int(known.get(word) or int(word, 0))
        data = bytes.fromhex(value.removeprefix("hex:")) if value.startswith("hex:") else value.encode()
    except ValueError:
        hint = did_you_mean(word, known) or f"Types are {', '.join(known)}, or a number such as 0xe4."
        raise UsageError(f"--tlv {text}: it takes a type and a text, or hex: and bytes.", hint=hint) from None
    if not 0 <= kind <= 255:
        raise UsageError(f"--tlv {text}: a type is 0 to 255.")
    return Tlv(kind, data)


def read_pasted(data: bytes) -> bytes:
    """The bytes that were given as such, as the text of version 1, or in hex in one of its many forms.

    Raises:
        UsageError: It is none of these.
    """
    if data.startswith(V2_SIGNATURE):
        return data
    if data.startswith(b"PROXY"):
        text = data.replace(b"\\r\\n", b"\r\n")
        return text if b"\r\n" in text else text.rstrip(b"\n") + b"\r\n"
    lines = data.decode("ascii", "replace").splitlines()
    if dump := [line[offset.end() :] for line in lines if (offset := OFFSET.match(line))]:
        lines = list(map(_hex_columns, dump))
    try:
        return bytes.fromhex(re.sub(r"0x|\\x|[\s:,]", "", "".join(lines), flags=re.IGNORECASE))
    except ValueError:
        hint = "See: esockd proxy decode --help"
        raise UsageError("these are not bytes in hex.", code="bad_hex", hint=hint) from None


def _hex_columns(line: str) -> str:
    """The hex of a line of a dump, without the text behind it; hexdump -C has it in two columns."""
    first, *others = re.split(r"\s{2,}", line.partition("|")[0].strip())
    return first + "".join(others[:1] if others and COLUMN.fullmatch(others[0]) else ())


def describe_header(header: ProxyHeader, length: int, behind: int) -> dict[str, Any]:
    """What a header says.

    Args:
        header: The header.
        length: Its bytes.
        behind: Bytes that follow it.

    Returns:
        Facts by name; None for what does not apply.
    """
    return {
        "version": header.version,
        "command": header.command.name,
        "family": header.family.name,
        "transport": header.transport.name,
        "source": None if header.source is None else str(header.source),
        "destination": None if header.destination is None else str(header.destination),
        "bytes": length,
        "behind": behind or None,
        "tlvs": [_describe_tlv(each) for each in header.tlvs],
    }


def _describe_tlv(tlv: Tlv) -> dict[str, object]:
    name = TlvType(tlv.type).name.lower() if tlv.type in {*TlvType} else f"0x{tlv.type:02x}"
    try:
        text: str | None = tlv.value.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and not text.isprintable():
        text = None
    return {"type": int(tlv.type), "name": name, "hex": tlv.value.hex(), "text": text or None}
